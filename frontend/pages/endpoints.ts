// The targets in the form of an endpoint: added, put in another order, taken out.
const htmx = () => (window as any).htmx
let made = 0

function renumber(list: HTMLElement) {
  const rows = [...list.querySelectorAll<HTMLElement>('[data-target]')]
  rows.forEach((row, at) => {
    for (const one of row.querySelectorAll('[data-number]')) one.textContent = String(at + 1)
    row.querySelector<HTMLButtonElement>('[data-move=up]')!.disabled = at === 0
    row.querySelector<HTMLButtonElement>('[data-move=down]')!.disabled = at === rows.length - 1
    row.querySelector<HTMLButtonElement>('[data-move=out]')!.disabled = rows.length === 1
  })
  const add = list.closest('form')!.querySelector<HTMLButtonElement>('[data-add-target]')!
  add.disabled = rows.length >= Number(list.dataset.most)
}

/** Ids in the copied row end in `-new`; no two rows may have the same. */
function add(form: HTMLElement) {
  const list = form.querySelector<HTMLElement>('[data-targets]')!
  const copy = (form.querySelector('template') as HTMLTemplateElement).content.cloneNode(true) as DocumentFragment
  const row = copy.querySelector<HTMLElement>('[data-target]')!
  made += 1
  for (const one of [row, ...row.querySelectorAll('*')]) {
    for (const attribute of one.attributes) {
      if (attribute.value.endsWith('-new')) attribute.value = attribute.value.replace(/-new$/, `-added${made}`)
    }
  }
  list.append(copy)
  htmx().process(row)
  renumber(list)
  row.querySelector('select')!.focus()
}

function move(pressed: HTMLElement, how: string) {
  const row = pressed.closest<HTMLElement>('[data-target]')!
  const list = row.closest<HTMLElement>('[data-targets]')!
  if (how === 'up') row.previousElementSibling?.before(row)
  if (how === 'down') row.nextElementSibling?.after(row)
  if (how === 'out') {
    const next = (row.nextElementSibling ?? row.previousElementSibling) as HTMLElement | null
    row.remove()
    next?.querySelector('select')?.focus()
  } else pressed.focus()
  renumber(list)
}

document.addEventListener('click', (event) => {
  const pressed = (event.target as Element).closest<HTMLElement>('[data-route] [data-add-target], [data-route] [data-move]')
  if (pressed === null) return
  if (pressed.dataset.move) move(pressed, pressed.dataset.move)
  else add(pressed.closest<HTMLElement>('form')!)
})

function begin() {
  for (const list of document.querySelectorAll<HTMLElement>('[data-route] [data-targets]')) renumber(list)
}

document.addEventListener('htmx:after:swap', begin)
begin()
