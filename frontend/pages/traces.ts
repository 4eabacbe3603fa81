// The live tail of traces, and periods that are picked by their dates.
import Alpine from '@alpinejs/csp'

/** A button that pauses what looks again by itself: `data-of` is the id of that. */
Alpine.data('tail', () => ({
  isPaused: false,
  get isRunning(): boolean {
    return !(this as any).isPaused
  },
  get isPausedText(): string {
    return String((this as any).isPaused)
  },
  toggle(this: any) {
    this.isPaused = !this.isPaused
    document.getElementById(this.$root.dataset.of)?.toggleAttribute('data-paused', this.isPaused)
  },
}))

/** A choice that shows further fields: those of a period from one date to another. */
Alpine.data('picked', () => ({
  value: '',
  init(this: any) {
    this.value = this.$root.dataset.picked
  },
  get isCustom(): boolean {
    return (this as any).value === 'custom'
  },
}))
