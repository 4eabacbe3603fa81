// Draws every <canvas data-chart="ID"> from the JSON in #ID: {labels, unit, kind, series: [{name, data}]}; the unit usd is
// nano-dollars, which stay whole numbers up to here.
import { BarController, BarElement, CategoryScale, Chart, Legend, LineController, LineElement, LinearScale, PointElement, Tooltip } from 'chart.js'

Chart.register(BarController, BarElement, CategoryScale, LinearScale, LineController, LineElement, PointElement, Tooltip, Legend)

const drawn = new Map<HTMLCanvasElement, Chart>()
const PALETTE = ['--c1', '--c2', '--c3', '--c5', '--c6', '--c4']

function written(value: number, unit: string): string {
  if (unit === 'usd') return value === 0 ? '$0' : `$${value >= 1 ? value.toFixed(2) : value.toPrecision(2)}`
  return new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 }).format(value)
}

function draw() {
  const css = getComputedStyle(document.documentElement)
  const colour = (name: string) => css.getPropertyValue(name).trim()
  for (const [canvas, chart] of drawn) if (!canvas.isConnected) { chart.destroy(); drawn.delete(canvas) }
  for (const canvas of document.querySelectorAll<HTMLCanvasElement>('canvas[data-chart]')) {
    drawn.get(canvas)?.destroy()
    const data = JSON.parse(document.getElementById(canvas.dataset.chart!)!.textContent!)
    const quiet = colour('--muted-foreground')
    drawn.set(canvas, new Chart(canvas, {
      type: data.kind ?? 'bar',
      data: {
        labels: data.labels,
        datasets: data.series.map((one: any, i: number) => ({
          label: one.name, data: data.unit === 'usd' ? one.data.map((nano: number) => nano / 1e9) : one.data, backgroundColor: colour(PALETTE[i % PALETTE.length]),
          borderColor: colour(PALETTE[i % PALETTE.length]), borderRadius: 3, maxBarThickness: 18, pointRadius: 0, borderWidth: data.kind === 'line' ? 2 : 0,
        })),
      },
      options: {
        maintainAspectRatio: false, animation: false, interaction: { mode: 'index', intersect: false },
        plugins: {
          legend: { display: data.series.length > 1, position: 'top', align: 'end', labels: { boxWidth: 8, boxHeight: 8, usePointStyle: true, color: quiet } },
          tooltip: { callbacks: { label: (item: any) => ` ${item.dataset.label}: ${written(item.parsed.y, data.unit)}` } },
        },
        scales: {
          x: { stacked: true, grid: { display: false }, ticks: { color: quiet, maxRotation: 0, autoSkipPadding: 24 } },
          y: { stacked: data.kind !== 'line', beginAtZero: true, border: { display: false }, grid: { color: colour('--border') }, ticks: { color: quiet, maxTicksLimit: 5, callback: (value: any) => written(value, data.unit) } },
        },
      },
    }))
  }
}

document.addEventListener('theme', draw)
document.addEventListener('htmx:after:swap', draw)
draw()
