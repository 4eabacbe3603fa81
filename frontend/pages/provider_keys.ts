// The form of a provider key: a secret that is masked until one wants to see it, and fields by sign-in method.
import Alpine from '@alpinejs/csp'

Alpine.data('masked', () => ({
  shown: false,
  get kind(): string {
    return (this as any).shown ? 'text' : 'password'
  },
  turn(this: any) {
    this.shown = !this.shown
  },
}))

/** A part of the form that most have no use for: shut, unless something in it is set or wrong. */
Alpine.data('unfold', () => ({
  open: false,
  init(this: any) {
    this.open = this.$root.dataset.unfolded === 'yes'
  },
  turn(this: any) {
    this.open = !this.open
  },
}))

/** Fields that belong to another way of signing in are neither seen nor sent. */
Alpine.data('signIn', () => ({
  init(this: any) {
    this.pick()
  },
  pick(this: any) {
    const select = this.$root.querySelector('select[name=auth]') as HTMLSelectElement | null
    const method = select?.selectedOptions[0]?.dataset.id
    for (const one of this.$root.querySelectorAll('[data-method]') as NodeListOf<HTMLFieldSetElement>) {
      one.hidden = one.disabled = one.dataset.method !== method
    }
  },
}))

// Enter in what an import has found would read and test the whole text anew, and put every name and tick back.
document.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.target as Element).matches?.('#found input')) event.preventDefault()
})
