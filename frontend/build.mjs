// Builds what a browser loads: two scripts, the charts, one style sheet, one sprite of icons, one font.
import { execFileSync } from 'node:child_process'
import { cpSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { build } from 'esbuild'

const out = '../src/ostiary/dashboard/static'

// Only the icons that a template or script names: the whole set is a megabyte.
const templates = '../src/ostiary/dashboard/templates'
const texts = [
  ...readdirSync(templates, { recursive: true }).filter((name) => name.endsWith('.html')).map((name) => `${templates}/${name}`),
  ...readdirSync('../src/ostiary/dashboard').filter((name) => name.endsWith('.py')).map((name) => `../src/ostiary/dashboard/${name}`),
  'app.ts',
  ...readdirSync('pages').map((name) => `pages/${name}`),
].map((name) => readFileSync(name, 'utf8')).join('\n')
const known = new Set(readdirSync('node_modules/lucide-static/icons').filter((name) => name.endsWith('.svg')).map((name) => name.slice(0, -4)))
const icons = [...new Set([...texts.matchAll(/["'#]([a-z][a-z0-9]*(?:-[a-z0-9]+)*)["']/g)].map((found) => found[1]))].filter((name) => known.has(name)).sort()
const symbol = (name) => readFileSync(`node_modules/lucide-static/icons/${name}.svg`, 'utf8')
  .replace(/<!--[^]*?-->/g, '')
  .replace(/<svg[^]*?>/, `<symbol id="${name}" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round">`)
  .replace('</svg>', '</symbol>')
writeFileSync(`${out}/icons.svg`, `<svg xmlns="http://www.w3.org/2000/svg">${icons.map(symbol).join('')}</svg>`)

const pages = readdirSync('pages').filter((name) => name.endsWith('.ts')).sort()
const entry = [`import './app'`, ...pages.map((name) => `import './pages/${name.slice(0, -3)}'`), `import { start } from './app'`, 'start()'].join('\n')
const shared = { bundle: true, minify: true, target: 'es2022', format: 'iife', legalComments: 'none' }
await build({ ...shared, stdin: { contents: entry, resolveDir: '.', loader: 'ts' }, outfile: `${out}/app.js` })
await build({ ...shared, entryPoints: ['theme.ts', 'charts.ts'], outdir: out })
execFileSync(process.execPath, ['node_modules/@tailwindcss/cli/dist/index.mjs', '-i', 'app.css', '-o', `${out}/app.css`, '--minify'], { stdio: 'inherit' })
cpSync('node_modules/@fontsource-variable/inter/files/inter-latin-wght-normal.woff2', `${out}/inter.woff2`)
