// Runs before anything is drawn, so that no page flashes in the other colours; follows the machine until somebody chooses otherwise.
const machine = matchMedia('(prefers-color-scheme: dark)')

function paint() {
  const chosen = localStorage.getItem('theme')
  document.documentElement.classList.toggle('dark', chosen === null ? machine.matches : chosen === 'dark')
  document.dispatchEvent(new CustomEvent('theme'))
}

machine.addEventListener('change', paint)
paint()

// What is typed, pressed or sent before the other script is there waits for it: by itself a browser would write all that
// was typed, passwords too, into the address; fields would be as the page began them, and buttons had done nothing.
const early = ['input', 'change', 'submit', 'click']
const typed = new Map<EventTarget, () => void>()
let pressed = () => {}

function hold(event: Event) {
  const field = event.target as HTMLInputElement
  if (/input|change/.test(event.type)) {
    const { value, checked } = field
    return void typed.set(field, () => {
      field.value = value
      if (checked !== undefined) field.checked = checked // whatever has it counts as a box to tick
      for (const what of ['input', 'change']) field.dispatchEvent(new Event(what, { bubbles: true }))
    })
  }
  const isSent = event.type === 'submit'
  const asks = field.closest<HTMLElement>(isSent ? 'form' : 'a,button,input,tr[data-row]')
  if (!asks?.matches('form:not([action]),button[type=button]:not([commandfor]),tr[data-row]')) return
  event.preventDefault()
  const by = (event as SubmitEvent).submitter as HTMLButtonElement | null
  pressed = () => {
    if (!isSent) asks.click()
    else if (!by?.disabled) (asks as HTMLFormElement).requestSubmit(by) // it may wait for a name that is not typed yet
  }
}

for (const what of early) document.addEventListener(what, hold, true)
document.addEventListener('ready', () => {
  for (const what of early) document.removeEventListener(what, hold, true)
  document.addEventListener('DOMContentLoaded', () => { // by then tabs listen, too
    for (const again of typed.values()) again()
    pressed()
  })
})
