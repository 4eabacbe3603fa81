// Runs before anything is drawn, so that no page flashes in the other colours; follows the machine until somebody chooses otherwise.
const machine = matchMedia('(prefers-color-scheme: dark)')

function paint() {
  const chosen = localStorage.getItem('theme')
  document.documentElement.classList.toggle('dark', chosen === null ? machine.matches : chosen === 'dark')
  document.dispatchEvent(new CustomEvent('theme'))
}

machine.addEventListener('change', paint)
paint()
