// Links with a token behind `#`: no server, no log and no scanner of mails is told of it. Kept in this tab alone.
import htmx from 'htmx.org'

function open() {
  const form = document.querySelector<HTMLFormElement>('form[data-behind]')
  if (form === null) return
  const place = `behind:${location.pathname}`
  const token = location.hash.slice(1) || sessionStorage.getItem(place) || ''
  document.querySelector('[data-incomplete]')?.toggleAttribute('hidden', token !== '')
  if (token === '') return
  sessionStorage.setItem(place, token)
  history.replaceState(history.state, '', location.pathname)
  form.querySelector<HTMLInputElement>('[name=token]')!.value = token
  htmx.trigger(form, 'arrived')
}

document.addEventListener('DOMContentLoaded', () => setTimeout(open))
addEventListener('hashchange', open)
