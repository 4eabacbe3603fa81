// One chat completion as people write it: curl, Python, TypeScript. The key is a placeholder.
export type Language = 'curl' | 'python' | 'typescript'

export interface Body {
  model: string
  messages: { role: string, content: string }[]
  max_tokens?: number
  stream: boolean
  stream_options: { include_usage: boolean }
}

const KEY = 'YOUR_AGENT_KEY'

/** Messages are strings only, and JSON's strings are Python's and TypeScript's, too. */
const indented = (text: string, by: string): string => text.replaceAll('\n', `\n${by}`)
/** Within single quotes a shell reads everything as it is, but for the quote. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

export function snippetOf(language: Language, origin: string, body: Body): string {
  const limit = body.max_tokens === undefined ? '' : String(body.max_tokens)
  if (language === 'curl') {
    return [
      `curl ${origin}/v1/chat/completions \\`,
      `  -H "Authorization: Bearer ${KEY}" \\`,
      '  -H "Content-Type: application/json" \\',
      `  -d ${quoted(JSON.stringify(body, null, 2))}`,
    ].join('\n')
  }
  if (language === 'python') {
    return [
      'from openai import OpenAI', '',
      `client = OpenAI(base_url="${origin}/v1", api_key="${KEY}")`,
      'stream = client.chat.completions.create(',
      `    model=${JSON.stringify(body.model)},`,
      `    messages=${indented(JSON.stringify(body.messages, null, 4), '    ')},`,
      ...(limit ? [`    max_tokens=${limit},`] : []),
      '    stream=True,',
      '    stream_options={"include_usage": True},',
      ')',
      'for chunk in stream:',
      '    if chunk.choices:',
      '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
    ].join('\n')
  }
  return [
    "import OpenAI from 'openai'", '',
    `const client = new OpenAI({ baseURL: '${origin}/v1', apiKey: '${KEY}' })`,
    'const stream = await client.chat.completions.create({',
    `  model: ${JSON.stringify(body.model)},`,
    `  messages: ${indented(JSON.stringify(body.messages, null, 2), '  ')},`,
    ...(limit ? [`  max_tokens: ${limit},`] : []),
    '  stream: true,',
    '  stream_options: { include_usage: true },',
    '})',
    'for await (const chunk of stream) {',
    "  process.stdout.write(chunk.choices[0]?.delta?.content ?? '')",
    '}',
  ].join('\n')
}
