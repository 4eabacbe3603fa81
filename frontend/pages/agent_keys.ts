// Keys: fields that come and go, providers that are counted, models that are picked, the menu of a row.
import Alpine from '@alpinejs/csp'

const form = () => document.getElementById('key-form') as HTMLFormElement | null
const boxes = () => [...(form()?.querySelectorAll<HTMLInputElement>('[name=providers]') ?? [])]

Alpine.data('keyForm', () => ({
  budget: '',
  soft: '',
  expires: '',
  isEphemeral: false,
  chosen: '',
  get hasBudget(): boolean {
    return (this as any).budget.trim() !== '' || (this as any).soft.trim() !== ''
  },
  get isStandard(): boolean {
    return !(this as any).isEphemeral
  },
  get isCustom(): boolean {
    return !(this as any).isEphemeral && (this as any).expires === 'custom'
  },
  init(this: any) {
    // The page says how the form begins; what is typed is Alpine's from then on.
    const value = (name: string) => this.$root.querySelector(`[name=${name}]`)?.value ?? ''
    this.budget = value('budget')
    this.soft = value('soft')
    this.expires = value('expires')
    this.isEphemeral = this.$root.querySelector('[name=is_ephemeral]')?.checked ?? false
    this.recount()
  },
  recount(this: any) {
    const all = boxes().length
    const on = boxes().filter((box) => box.checked).length
    if (on === all) this.chosen = 'All on: no restriction.'
    else if (on === 0) this.chosen = 'All off: this key can reach no provider.'
    else this.chosen = `${on} of ${all} on: this key can reach only these.`
  },
  allOn(this: any) {
    for (const box of boxes()) box.checked = true
    this.recount()
  },
  allOff(this: any) {
    for (const box of boxes()) box.checked = false
    this.recount()
  },
}))

// ---- the model picker: a press adds a name to the list, another takes it away -------------------------------------

const names = (area: HTMLTextAreaElement) => area.value.split(/[,\n]/).map((one) => one.trim()).filter(Boolean)

function markPicked() {
  const area = form()?.querySelector<HTMLTextAreaElement>('[name=models]')
  if (!area) return
  const chosen = new Set(names(area))
  for (const one of document.querySelectorAll<HTMLElement>('[data-pick]')) {
    one.setAttribute('aria-pressed', String(chosen.has(one.dataset.pick!)))
  }
}

document.addEventListener('click', (event) => {
  const pressed = (event.target as Element).closest<HTMLElement>('[data-pick]')
  const area = form()?.querySelector<HTMLTextAreaElement>('[name=models]')
  if (!pressed || !area) return
  const name = pressed.dataset.pick!
  const before = names(area)
  area.value = (before.includes(name) ? before.filter((one) => one !== name) : [...before, name]).join(', ')
  markPicked()
})
document.addEventListener('input', (event) => {
  if ((event.target as Element).matches?.('#key-form [name=models]')) markPicked()
})

// ---- rows, and dialogs that are fetched ----------------------------------------------------------------------------

document.addEventListener('click', (event) => {
  const row = (event.target as Element).closest<HTMLElement>('tr[data-row]')
  if (row === null || (event.target as Element).closest('a,button,input,dialog')) return
  if (getSelection()?.toString()) return
  location.assign(row.dataset.row!)
})

document.addEventListener('htmx:after:swap', () => {
  markPicked()
  for (const one of document.querySelectorAll<HTMLDialogElement>('[data-shows] > dialog')) if (!one.open) one.showModal()
})

// A dialog that was fetched is gone when it closes.
document.addEventListener('close', (event) => {
  const dialog = event.target as HTMLDialogElement
  if (!dialog.open && dialog.parentElement?.hasAttribute('data-shows')) dialog.remove()
}, true)

// ---- the menu of a row: fetched when it is asked for, and gone by Escape or a press elsewhere ------------------------

const menu = document.getElementById('row-menu')
let opener: HTMLElement | null = null

document.addEventListener('htmx:after:swap', (event: any) => {
  const { sourceElement, target } = event.detail.ctx ?? {}
  // What has brought a menu, drawn anew or gone: another row stands at its place, and it would be taken for that one's.
  if (menu === null || (target !== menu && opener?.isConnected !== false)) return
  menu.hidePopover()
  if (target !== menu || sourceElement === menu) return // htmx names the menu where the row is gone
  opener = sourceElement as HTMLElement
  opener.focus() // where the focus goes back to
  menu.showPopover()
  const at = opener.getBoundingClientRect()
  const isBelow = at.bottom + menu.offsetHeight < innerHeight
  menu.style.top = `${isBelow ? at.bottom : Math.max(0, at.top - menu.offsetHeight)}px`
  menu.style.left = `${Math.max(0, at.right - menu.offsetWidth)}px`
  menu.querySelector<HTMLElement>('[role=menuitem]')!.focus()
})
menu?.addEventListener('toggle', (event: any) => opener?.setAttribute('aria-expanded', String(event.newState === 'open')))
menu?.addEventListener('click', () => menu.hidePopover())
menu?.addEventListener('keydown', (event) => {
  const items = [...menu.querySelectorAll<HTMLElement>('[role=menuitem]')]
  const at = items.indexOf(document.activeElement as HTMLElement)
  const next: Record<string, number> = { ArrowDown: (at + 1) % items.length, ArrowUp: at - 1, Home: 0, End: -1 }
  if (event.key === 'Tab') menu.hidePopover()
  if (!(event.key in next)) return
  event.preventDefault()
  items.at(next[event.key])!.focus()
})
