// What every page has: requests that carry their token, toasts, copying, confirming by name, jumping, and the theme.
import Alpine from '@alpinejs/csp'
import 'basecoat-css/basecoat'
import 'basecoat-css/sidebar'
import 'basecoat-css/tabs'
import htmx from 'htmx.org'

Object.assign(window, { htmx, Alpine })

const meta = (name: string) => document.querySelector<HTMLMetaElement>(`meta[name=${name}]`)

// ---- requests -----------------------------------------------------------------------------------------------------

/** What is on its way to change something: pressed once more, it is not sent once more. What says `hx-sync` only checks. */
export const sent = new Set<Element>()

document.addEventListener('htmx:config:request', (event: any) => {
  const { ctx } = event.detail
  if (ctx.request.method !== 'GET' && !ctx.sourceElement.hasAttribute('hx-sync')) {
    if (sent.has(ctx.sourceElement)) return event.preventDefault()
    sent.add((ctx.pressed = ctx.sourceElement))
  }
  ctx.request.headers['X-CSRF-Token'] = meta('csrf')?.content ?? ''
  // What is read is read there, too: another tab may work in another organization by now.
  const home = document.querySelector<HTMLInputElement>('#sign-in-again-form [name=organization]')?.value
  if (home) ctx.request.headers['X-Ostiary-Organization'] = home
  // Pages that look again by themselves keep nobody signed in.
  if (isLook(ctx)) ctx.request.headers['X-Ostiary-Look'] = '1'
})

/** Whether the page is about to be left: who looked again would be told the way anew, and begin it anew each time. */
let isLeaving = false

document.addEventListener('htmx:before:request', (event: any) => {
  if (isLeaving && isLook(event.detail.ctx)) event.preventDefault()
})
document.addEventListener('htmx:finally:request', (event: any) => {
  const { ctx } = event.detail
  if (ctx.keepIndicators) isLeaving = true
  else sent.delete(ctx.pressed)
})
addEventListener('pageshow', (event) => {
  if (event.persisted && (isLeaving || sent.size > 0)) location.reload() // left by what was pressed, and kept in memory
})

/** Whether a page asks by itself, and nobody has pressed anything: a live part, or what such a part brings in turn. */
function isLook(ctx: any): boolean {
  const asks: HTMLElement | undefined = ctx?.sourceElement
  if (ctx?.sourceEvent?.type === 'look' || asks?.dataset?.live !== undefined) return true
  return asks?.getAttribute?.('hx-trigger') === 'load' && asks.closest('[data-live]') !== null
}

/** What waits for somebody to sign in again: it is sent anew then, with all that was typed; of deeds only the last. */
let waiting: any[] = []

function wait(ctx: any) {
  waiting = waiting.filter((one) => one.sourceElement !== ctx.sourceElement && !(one.pressed && ctx.pressed))
  waiting.push(ctx)
}

/** Whether a live page has said that it stands still: once is enough. */
let isStill = false

document.addEventListener('htmx:before:response', (event: any) => {
  const { ctx } = event.detail
  const asked = ctx.response.headers.get('X-Ostiary-Sign-In')
  if (asked === null) return
  const dialog = document.getElementById('sign-in-again') as HTMLDialogElement | null
  if (dialog === null) return
  event.preventDefault()
  const isByItself = isLook(ctx)
  if (dialog.open) {
    if (!isByItself) wait(ctx) // somebody is typing there
  } else if (ctx.request.headers['X-CSRF-Token'] !== meta('csrf')?.content) {
    // It was asked before somebody signed in again, which is done. When this one has ended: two are not sent at once.
    if (!isByItself) setTimeout(send, 0, ctx)
  } else if (isByItself && asked === 'page') {
    if (!isStill) toast('You work in another organization now. This page stands still; load it again.', 'error')
    isStill = true
  } else {
    signInAgain(asked, isByItself ? [] : [ctx])
  }
})

/** Ask for it over the page; what waited for it before was cancelled. */
export function signInAgain(why: string, what: any[] = []) {
  const dialog = document.getElementById('sign-in-again') as HTMLDialogElement
  if (dialog.open) return
  waiting = what
  for (const one of dialog.querySelectorAll<HTMLElement>('[data-why]')) one.hidden = one.dataset.why !== why
  dialog.querySelector('form')!.reset()
  dialog.querySelector('[data-said]')!.textContent = ''
  dialog.showModal()
}

document.addEventListener('submit', async (event) => {
  const form = event.target as HTMLFormElement
  if (form.id !== 'sign-in-again-form') return
  event.preventDefault()
  if (sent.has(form)) return
  sent.add(form)
  const headers = { 'X-CSRF-Token': meta('csrf')?.content ?? '', 'HX-Request': 'true' }
  const body = new URLSearchParams(new FormData(form) as any)
  const answer = await fetch(form.action, { method: 'POST', headers, body }).catch(() => null)
  sent.delete(form)
  if (!answer?.ok) {
    const away = 'The gateway does not answer. Try again in a moment.'
    form.querySelector('[data-said]')!.textContent = answer === null ? away : answer.headers.get('X-Ostiary-Said') ?? 'This did not work. Try again.'
    return
  }
  meta('csrf')!.content = answer.headers.get('X-Ostiary-Csrf') ?? ''
  const dialog = form.closest('dialog')!
  const again = dialog.open ? waiting : [] // closed meanwhile, it was cancelled
  waiting = []
  dialog.close()
  again.forEach(send)
})

/** Ask once more for what was asked for, by the same event: what is chosen in a field is sent by no click. */
function send({ sourceElement: source, sourceEvent: event, target, swap, request }: any) {
  const path = source.getAttribute(`hx-${request.method.toLowerCase()}`) ?? request.action
  htmx.ajax(request.method, path, { source, event, target, swap })
}

/** The choice of an organization says where one is: what came to nothing is taken back. */
function takeBack(event: any) {
  const form = document.querySelector<HTMLSelectElement>('#organization')?.form
  const ctx = event.detail?.ctx
  const isRefused = ctx?.sourceElement === form && !ctx?.response?.headers.has('X-Ostiary-Sign-In')
  if (form && (event.target.id === 'sign-in-again' || isRefused) && !sent.has(form)) form.reset()
}

document.addEventListener('htmx:finally:request', takeBack)
document.addEventListener('close', takeBack, true)

/** Whether a live page has said that the gateway is away: it looks every few seconds, and once is enough. */
let isAway = false

document.addEventListener('htmx:error', (event: any) => {
  if (!isLook(event.detail?.ctx)) {
    toast('The gateway does not answer. What you typed is still here; try again in a moment.', 'error')
  } else if (!isAway) {
    isAway = true
    toast('The gateway does not answer. This page goes on looking.', 'error')
  }
})

document.addEventListener('htmx:after:request', (event: any) => {
  isStill = false
  if (!isAway || event.detail?.ctx?.response === undefined) return
  isAway = false
  toast('The gateway answers again.')
})

// ---- toasts -------------------------------------------------------------------------------------------------------

/** What screen readers listen to. A modal dialog shuts off all that is not in it, so there it is while one is open. */
const toaster = document.getElementById('toaster')

function settle() {
  if (toaster === null) return
  const modal = document.activeElement?.closest('dialog:modal') ?? [...document.querySelectorAll('dialog:modal')].at(-1)
  const place = modal?.firstElementChild ?? document.body
  if (toaster.parentNode !== place) place.append(toaster)
  // Above every dialog; moved, it is hidden, and shown again it is the topmost.
  toaster.popover = 'manual'
  if (!toaster.matches(':popover-open')) toaster.showPopover()
}

// Before the first toast: what a live region is born with is not read out.
for (const what of ['toggle', 'close', 'htmx:after:swap']) document.addEventListener(what, settle, true)

export function toast(text: string, kind = 'success') {
  if (toaster === null) return
  settle()
  const box = document.createElement('div')
  box.className = 'toast'
  box.dataset.category = kind
  const content = document.createElement('div')
  content.className = 'toast-content'
  const section = document.createElement('section')
  const title = document.createElement('p')
  title.className = 'font-medium'
  title.textContent = text
  section.append(title)
  content.append(section)
  box.append(content)
  toaster.append(box)
  // So long it can be read: no time passes while the machine stands still, and it begins anew while somebody is at it.
  const all = kind === 'error' ? 32 : 16
  let left = all
  const passing = setInterval(() => {
    if (box.matches(':hover')) left = all
    else if (--left < 1) {
      clearInterval(passing)
      box.setAttribute('aria-hidden', 'true')
      setTimeout(() => box.remove(), 500)
    }
  }, 250)
}

document.addEventListener('toast', (event: any) => toast(event.detail.text ?? event.detail.value, event.detail.kind))

// ---- small parts --------------------------------------------------------------------------------------------------

/** Whether it was copied. Over plain http a browser has no clipboard but the old one, which takes what is selected. */
export async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    const field = Object.assign(document.createElement('textarea'), { value: text, readOnly: true })
    const focused = document.activeElement as HTMLElement | null
    ;(focused?.closest('dialog:modal') ?? document.body).append(field)
    field.select()
    const done = document.execCommand('copy')
    field.remove()
    focused?.focus()
    if (!done) toast('This browser lets no page copy here. Select the text and copy it yourself.', 'error')
    return done
  }
}

Alpine.data('copy', () => ({
  done: false,
  async go(this: any) {
    if (!(await copied(this.$root.dataset.text))) return
    this.done = true
    setTimeout(() => (this.done = false), 2000)
  },
}))

/** A dialog whose button works once the name is typed: `data-name` on the root, `x-model="typed"` on the field. */
Alpine.data('confirmed', () => ({
  typed: '',
  get isWrong(): boolean {
    return (this as any).typed.trim() !== (this as any).$root.dataset.name
  },
}))

/** A list that is filtered as one types: every `[data-words]` below is shown when it holds what was typed. */
Alpine.data('sifted', () => ({
  sought: '',
  left: -1,
  sift(this: any, event: Event) {
    htmx.trigger(event.target, 'htmx:abort') // an answer to less than is typed now would lead Enter elsewhere
    const wanted = this.sought.trim().toLowerCase()
    let left = 0
    for (const one of this.$root.querySelectorAll('[data-words]') as NodeListOf<HTMLElement>) {
      one.hidden = !one.dataset.words!.toLowerCase().includes(wanted)
      if (!one.hidden) left += 1
    }
    this.left = left
  },
}))

/** A form whose fields come and go: `x-data="fields"` with `data-fields='{"name": "value"}'` as what it starts with. */
Alpine.data('fields', () => ({
  is: {} as Record<string, unknown>,
  init(this: any) {
    this.is = JSON.parse(this.$root.dataset.fields ?? '{}')
  },
}))

document.addEventListener('click', (event) => {
  const pressed = (event.target as Element).closest<HTMLElement>('[data-theme-toggle],[data-close],[data-open],[data-menu]')
  if (pressed === null) return
  if (pressed.hasAttribute('data-close')) return void pressed.closest('dialog')?.close()
  if (pressed.dataset.open !== undefined) return void (document.getElementById(pressed.dataset.open) as HTMLDialogElement | null)?.showModal()
  if (pressed.hasAttribute('data-menu')) return openMenu()
  const dark = document.documentElement.classList.toggle('dark')
  // Who goes back to what the machine prefers has chosen nothing: the pages follow it again.
  if (dark === matchMedia('(prefers-color-scheme: dark)').matches) localStorage.removeItem('theme')
  else localStorage.setItem('theme', dark ? 'dark' : 'light')
  document.dispatchEvent(new CustomEvent('theme'))
})

// ---- the menu of a narrow window ------------------------------------------------------------------------------------

const sidebar = document.getElementById('sidebar') as any
const hasRoom = matchMedia('(width >= 48rem)')

function openMenu() {
  sidebar.open()
  sidebar.querySelector('a').focus()
}

document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || hasRoom.matches || !sidebar?.contains(document.activeElement)) return
  sidebar.close()
  cover()
  document.querySelector<HTMLElement>('[data-menu]')!.focus()
})

// While it covers the page, nothing behind it is reached by Tab.
function cover() {
  const covers = !hasRoom.matches && sidebar.ariaHidden === 'false'
  for (const one of document.querySelectorAll<HTMLElement>('main, .skip')) one.inert = covers
}

if (sidebar) {
  new MutationObserver(cover).observe(sidebar, { attributeFilter: ['aria-hidden'] })
  // A telephone that is turned: with room it stands beside the page, without it would cover it.
  hasRoom.addEventListener('change', () => (hasRoom.matches ? sidebar.open() : sidebar.close()))
}

// ---- back to a list -----------------------------------------------------------------------------------------------

// A list is left as it was filtered, and the links back to it lead there again.
addEventListener('pagehide', () => sessionStorage.setItem(location.pathname, location.search))
for (const link of document.querySelectorAll<HTMLAnchorElement>('a[data-back]')) link.search = sessionStorage[link.pathname] ?? ''

// ---- jumping anywhere ---------------------------------------------------------------------------------------------

document.addEventListener('keydown', (event) => {
  if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === 'k') {
    const jump = document.getElementById('jump') as HTMLDialogElement | null
    if (jump === null) return
    event.preventDefault()
    if (!jump.open) jump.showModal()
    jump.querySelector('input')!.select()
  }
  if (!(event.target as Element).closest?.('#jump')) return
  const links = [...document.querySelectorAll<HTMLAnchorElement>('#jump a:not([hidden])')]
  const at = links.indexOf(document.activeElement as HTMLAnchorElement)
  if (event.key === 'ArrowDown') links[at + 1]?.focus()
  else if (event.key === 'ArrowUp') (links[at - 1] ?? document.querySelector<HTMLElement>('#jump input'))?.focus()
  else if (event.key === 'Enter' && at < 0 && links.length > 0) location.assign(links[0].href)
  else return
  event.preventDefault()
})

// ---- the gateway went away, and is back ---------------------------------------------------------------------------

/** Whether somebody holds something down: drawn anew under them, it would not be pressed. */
let isHeld = false
for (const what of ['pointerdown', 'pointerup', 'pointercancel', 'contextmenu']) {
  document.addEventListener(what, () => (isHeld = what === 'pointerdown'), true)
}

document.addEventListener('htmx:before:swap', (event: any) => {
  const { sourceElement, sourceEvent } = event.detail.ctx
  const what = sourceEvent?.type
  if (what === 'look' && (isHeld || sourceElement.dataset.paused !== undefined)) event.preventDefault()
  // What asked by itself has given way to something newer meanwhile.
  if (/^(load|every)$/.test(what) && !sourceElement.isConnected) event.preventDefault()
})

/** Pages that look again by themselves: `data-live="SECONDS"` on what `hx-get` brings anew, while the page is seen. */
function keepLooking() {
  for (const one of document.querySelectorAll<HTMLElement>('[data-live]')) {
    const every = Number(one.dataset.live) * 1000
    setInterval(() => {
      if (!document.hidden && one.isConnected && one.dataset.paused === undefined) htmx.trigger(one, 'look')
    }, every)
  }
}

export function start() {
  Alpine.start()
  htmx.initialize() // not a moment later, as it would by itself
  document.dispatchEvent(new Event('ready'))
  keepLooking()
  // A link from elsewhere may lead to a dialog of this page.
  const named = document.getElementById(location.hash.slice(1))
  if (named instanceof HTMLDialogElement) {
    history.replaceState(history.state, '', location.pathname + location.search)
    named.showModal()
  }
  const said = meta('said')
  if (said !== null) setTimeout(() => toast(said.content, said.dataset.kind), 100)
}
