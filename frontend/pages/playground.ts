// The playground: a conversation straight from the browser to /v1. No key is kept anywhere but in this page's memory.
import Alpine from '@alpinejs/csp'
import { copied, signInAgain } from '../app'
import { snippetOf, type Body, type Language } from '../snippets'

interface Turn {
  number: number
  id: string
  asked: string
  said: string
  isOpen: boolean
  title: string
  error: string
  note: string
  requestId: string
}

/** What was minted: for which key, and until when by this browser's own steady clock. */
interface Minted { keyId: string, secret: string, until: number }

const EARLY_MS = 15_000
const csrf = () => document.querySelector<HTMLMetaElement>('meta[name=csrf]')?.content ?? ''
let minted: Minted | null = null
let running: AbortController | null = null
let calls = 0

/** What stops a call before it begins; said beside the button. */
class Complaint extends Error {}

async function mint(keyId: string): Promise<string> {
  if (minted?.keyId === keyId && performance.now() < minted.until) return minted.secret
  const answer = await fetch('/dashboard/playground/key', {
    method: 'POST',
    headers: { 'X-CSRF-Token': csrf(), 'HX-Request': 'true' },
    body: new URLSearchParams({ key: keyId }),
  })
  const why = answer.headers.get('X-Ostiary-Sign-In')
  if (why !== null) {
    signInAgain(why)
    throw new Complaint('Sign in, then send again: nothing you typed is lost.')
  }
  const told = await answer.json().catch(() => ({ error: said(answer) }))
  if (!answer.ok || !told.secret) throw new Complaint(told.error ?? `The key cannot be used (${answer.status}). Choose another.`)
  minted = { keyId, secret: told.secret, until: performance.now() + told.lasts_ms - EARLY_MS }
  return told.secret
}

/** What the gateway says where it does not come to the page: for a script, it stands beside an empty answer. */
function said(answer: Response): string | undefined {
  try {
    return JSON.parse(answer.headers.get('HX-Trigger')!).toast.text
  } catch {
    return undefined
  }
}

/** The data of each server-sent event, as they come. */
async function* events(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = stream.pipeThrough(new TextDecoderStream() as any).getReader() as ReadableStreamDefaultReader<string>
  let held = ''
  for (;;) {
    const { done, value } = await reader.read()
    held += value ?? ''
    const parts = held.split(/\r?\n\r?\n/)
    held = parts.pop()!
    if (done) parts.push(held)
    for (const part of parts) {
      const data = part.split(/\r?\n/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5).replace(/^ /, ''))
      if (data.length > 0) yield data.join('\n')
    }
    if (done) return
  }
}

/** Into a turn, piece by piece; an error in the stream is one of the turn. */
async function relay(answer: Response, turn: Turn) {
  if (!(answer.headers.get('Content-Type') ?? '').startsWith('text/event-stream')) {
    const whole = await answer.json()
    turn.said = whole.choices?.[0]?.message?.content ?? ''
    return finished(turn, whole.choices?.[0]?.finish_reason)
  }
  let isWhole = false
  for await (const data of events(answer.body!)) {
    if (data === '[DONE]') { isWhole = true; break }
    const event = JSON.parse(data)
    if (event.error) return failed(turn, 'The answer broke off', event.error.message ?? 'No reason was given.')
    const choice = event.choices?.[0]
    turn.said += choice?.delta?.content ?? ''
    finished(turn, choice?.finish_reason)
  }
  if (!isWhole) failed(turn, 'The answer broke off', 'The stream ended before the answer was complete.')
}

function finished(turn: Turn, reason: string | null | undefined) {
  if (reason === 'length') turn.note = 'Cut off: the most tokens of the answer were reached.'
  else if (reason === 'content_filter') turn.note = "Cut off by the provider's content filter."
  else if (reason === 'stop' && turn.said === '') turn.note = 'The model answered with nothing.'
}

function failed(turn: Turn, title: string, error: string) {
  turn.title = title
  turn.error = error
}

/** What a refusal says, with what helps: when to come back, and its code. */
async function refused(answer: Response, turn: Turn) {
  const told = await answer.json().catch(() => ({}))
  const error = told.error ?? {}
  const wait = answer.headers.get('Retry-After')
  const words = [error.message ?? 'The gateway gave no reason.', wait ? `Try again in ${wait} s.` : '']
  failed(turn, `Refused: ${error.code ?? answer.status}`, words.filter(Boolean).join(' '))
}

Alpine.data('playground', () => ({
  how: 'mine',
  keyId: '',
  pasted: '',
  model: '',
  system: '',
  most: '',
  message: '',
  complaint: '',
  turns: [] as Turn[],
  isBusy: false,
  language: 'curl' as Language,
  isCopied: false,

  init(this: any) {
    this.model = this.$root.dataset.model
    this.keyId = this.$root.dataset.key
    if (this.keyId === '') this.how = 'pasted'
  },
  get isMine(): boolean { return (this as any).how === 'mine' },
  get isPasted(): boolean { return (this as any).how === 'pasted' },
  get hasTurns(): boolean { return (this as any).turns.length > 0 },
  get isCurl(): boolean { return (this as any).language === 'curl' },
  get isPython(): boolean { return (this as any).language === 'python' },
  get isTypescript(): boolean { return (this as any).language === 'typescript' },
  get snippet(): string {
    const self = this as any
    return snippetOf(self.language, location.origin, self.body(self.message.trim()))
  },

  choose(this: any, event: Event) { this.language = (event.currentTarget as HTMLElement).dataset.language },
  clear(this: any) {
    this.stop()
    this.turns = []
  },
  stop() { running?.abort() },
  async copySnippet(this: any) {
    if (!(await copied(this.snippet))) return
    this.isCopied = true
    setTimeout(() => (this.isCopied = false), 2000)
  },

  /** The call that comes next, or, with nothing typed, the last one that was made. */
  body(this: any, asked: string): Body {
    const answered = this.turns.filter((turn: Turn) => turn.said && !turn.isOpen && !turn.error)
    const last = asked === '' ? answered.pop() : undefined
    const messages = this.system.trim() === '' ? [] : [{ role: 'system', content: this.system.trim() }]
    for (const turn of answered) messages.push({ role: 'user', content: turn.asked }, { role: 'assistant', content: turn.said })
    messages.push({ role: 'user', content: asked || last?.asked || 'Who keeps the door?' })
    const most = /^\d+$/.test(this.most.trim()) ? { max_tokens: Number(this.most.trim()) } : {}
    return { model: this.model.trim(), messages, ...most, stream: true, stream_options: { include_usage: true } }
  },
  async secret(this: any): Promise<string> {
    if (this.isMine) {
      if (this.keyId === '') throw new Complaint('Choose an agent key, or paste one.')
      return mint(this.keyId)
    }
    const pasted = this.pasted.trim()
    if (pasted === '') throw new Complaint('Paste an agent key first.')
    if (!/^[\x21-\x7e]+$/.test(pasted)) throw new Complaint('This is no agent key: it holds characters that none has.')
    return pasted
  },

  async send(this: any) {
    const asked = this.message.trim()
    if (this.isBusy) return
    this.complaint = ''
    if (this.model.trim() === '') return void (this.complaint = 'Name a model, an endpoint or an alias.')
    if (asked === '') return void (this.complaint = 'Write a message first.')
    if (this.most.trim() !== '' && !/^[1-9]\d{0,8}$/.test(this.most.trim())) return void (this.complaint = 'The most tokens are a whole number from 1.')
    this.isBusy = true
    running = new AbortController()
    try {
      await this.call(asked, await this.secret(), running.signal)
    } catch (error) {
      this.complaint = error instanceof Complaint ? error.message : 'The gateway does not answer. What you typed is still here; try again in a moment.'
    } finally {
      this.isBusy = false
    }
  },
  async call(this: any, asked: string, secret: string, signal: AbortSignal) {
    const body = JSON.stringify(this.body(asked))
    const number = ++calls
    this.turns.push({ number, id: `call-${number}`, asked, said: '', isOpen: true, title: '', error: '', note: '', requestId: '' })
    const turn: Turn = this.turns.at(-1)
    this.message = ''
    try {
      const answer = await fetch('/v1/chat/completions', {
        method: 'POST',
        credentials: 'omit',
        cache: 'no-store',
        headers: { 'Authorization': `Bearer ${secret}`, 'Content-Type': 'application/json' },
        body,
        signal,
      })
      if (answer.status === 401) minted = null
      const requestId = answer.headers.get('X-Request-Id') ?? ''
      try {
        await (answer.ok ? relay(answer, turn) : refused(answer, turn))
      } finally {
        turn.requestId = requestId
      }
    } catch (error) {
      if (signal.aborted) turn.note = 'Stopped.'
      else failed(turn, 'The call broke off', 'The gateway does not answer, or the connection was cut. Try again in a moment.')
    }
    turn.isOpen = false
    if (turn.error && !turn.said && this.message === '') this.message = asked
    if (turn.requestId !== '' && this.turns.some((one: Turn) => one.id === turn.id)) await this.lookUp(turn)
  },
  /** What it was and cost stands in the ledger: a stream has no header for it. */
  async lookUp(this: any, turn: Turn) {
    await this.$nextTick()
    await (window as any).htmx.ajax('GET', `/dashboard/playground/calls/${encodeURIComponent(turn.requestId)}`, { target: `#${turn.id}`, swap: 'innerHTML' })
  },
}))
