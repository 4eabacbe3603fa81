// Runs before anything is drawn, so that no page flashes in the other colours; follows the machine until somebody chooses otherwise.
const machine = matchMedia('(prefers-color-scheme: dark)')

function paint() {
  const chosen = localStorage.getItem('theme')
  document.documentElement.classList.toggle('dark', chosen === null ? machine.matches : chosen === 'dark')
  document.dispatchEvent(new CustomEvent('theme'))
}

machine.addEventListener('change', paint)
paint()

// What is sent or pressed before the other script is there waits for it: by itself a browser would write all that was
// typed, passwords too, into the address.
const early = ['submit', 'click']
let held = () => {}

function hold(event: Event) {
  const isSent = event.type === 'submit'
  const asks = (event.target as Element).closest<HTMLElement>(isSent ? 'form:not([action])' : 'button:is([hx-get], [hx-post])')
  if (asks === null) return
  event.preventDefault()
  held = () => (isSent ? (asks as HTMLFormElement).requestSubmit((event as SubmitEvent).submitter) : asks.click())
}

for (const what of early) document.addEventListener(what, hold, true)
document.addEventListener('ready', () => {
  for (const what of early) document.removeEventListener(what, hold, true)
  held()
})
