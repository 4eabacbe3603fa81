// Links with a token behind `#`: no server, no log and no scanner of mails is told of it. Kept in this tab alone.
import htmx from 'htmx.org'

/** What stands behind `#`, but for where "Skip to content" leads. */
const behind = () => (location.hash === '#content' ? '' : location.hash.slice(1))

/** Whether this is the page of such a link; its form gives way to what the link is worth. */
let isOne = false

function open() {
  const form = document.querySelector<HTMLFormElement>('form[data-behind]')
  if (form === null) return
  isOne = true
  const place = `behind:${location.pathname}`
  const token = behind() || sessionStorage.getItem(place) || ''
  document.querySelector('[data-incomplete]')?.toggleAttribute('hidden', token !== '')
  if (token === '') return
  sessionStorage.setItem(place, token)
  history.replaceState(history.state, '', location.pathname)
  form.querySelector<HTMLInputElement>('[name=token]')!.value = token
  htmx.trigger(form, 'arrived')
}

document.addEventListener('DOMContentLoaded', () => setTimeout(open))

// Another link in the same tab is no other page to a browser.
addEventListener('hashchange', () => {
  if (isOne && behind() !== '') location.reload()
})
