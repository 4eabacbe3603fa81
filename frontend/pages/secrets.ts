// Secrets that are seen once, `data-once`: what was sent before one came neither covers it nor leads away from it, and
// what was meant for the form before it does not close it. What is sent to have one says `data-brings-once`.
import { sent, toast } from '../app'

const LOOKED_MS = 1000 // until whoever was about to press something has seen that a secret is there

const secrets = () => [...document.querySelectorAll<HTMLElement>('[data-once]')]
const isAwaited = (but?: Element) => [...sent].some((one) => one !== but && one.matches('[data-brings-once]'))

document.addEventListener('htmx:config:request', (event: any) => (event.detail.ctx.secrets = secrets()))

/** Those that have come since something was sent. */
const newer = (ctx: any) => secrets().filter((one) => !ctx.secrets?.includes(one))

// ---- not covered, and not led away from ---------------------------------------------------------------------------

document.addEventListener('htmx:before:swap', (event: any) => {
  const { ctx, tasks } = event.detail
  const main = tasks.find((one: any) => one.type === 'main')
  if (!main?.target || main.swapSpec.style === 'none' || main.fragment.querySelector('[data-once]')) return
  if (!newer(ctx).some((one) => main.target.contains(one))) return
  event.preventDefault()
  toast('What was sent before this secret came was answered, and the answer is not shown over it. Copy the secret first, then load the page again to see what is saved.', 'error')
})

/** Where the page goes once no secret is on it or on its way: empty for where it is, drawn anew. */
let next: string | null = null

document.addEventListener('htmx:after:request', (event: any) => {
  const { ctx } = event.detail
  if (!ctx.hx.redirect || (newer(ctx).length === 0 && !isAwaited(ctx.pressed))) return
  event.preventDefault()
  next = ctx.hx.redirect
})

function goOn() {
  if (next === null || isAwaited() || document.querySelector('[data-once], dialog:modal')) return
  if (next === '') location.reload()
  else location.assign(next)
}

document.addEventListener('htmx:finally:request', goOn)

// ---- opened, and closed when it was seen ----------------------------------------------------------------------------

const shown = new WeakSet<Element>()

document.addEventListener('htmx:after:swap', () => {
  for (const one of secrets()) {
    const dialog = one.closest('dialog')
    if (dialog === null || shown.has(one)) continue
    shown.add(one)
    if (!dialog.open) dialog.showModal() // it was closed before the secret came, which is shown nowhere else
    const closing = [...dialog.querySelectorAll<HTMLButtonElement>('button[data-close]')]
    for (const button of closing) button.disabled = true
    setTimeout(() => closing.forEach((button) => (button.disabled = false)), LOOKED_MS)
  }
})

for (const what of ['keydown', 'cancel']) {
  document.addEventListener(what, (event) => {
    if (what === 'keydown' && (event as KeyboardEvent).key !== 'Escape') return
    if (document.querySelector('dialog:modal:has([data-once]) button[data-close]:disabled')) event.preventDefault()
  }, true)
}

// What has shown a secret leaves a page that never had it.
document.addEventListener('close', (event) => {
  const dialog = event.target as HTMLDialogElement
  if (dialog.open) return // the browser says it at its next frame, and a secret that came meanwhile has opened it again
  for (const one of dialog.querySelectorAll('[data-once]')) {
    one.remove()
    next ??= ''
  }
  goOn()
}, true)

// Neither "back" nor a page kept in memory shows a secret again.
addEventListener('pagehide', () => {
  for (const one of secrets()) one.remove()
})
addEventListener('pageshow', (event) => {
  if (event.persisted && document.querySelector('#made:empty, #rotate-body:empty, #ephemeral-body:empty')) location.reload()
})
