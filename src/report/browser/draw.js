// @ts-check
// Draws the charts of a report with uPlot, which the page has before this script. The page brings the data as JSON.
;(() => {
  /** @typedef {import('../charts.ts').Chart} Chart */
  /** @typedef {import('../charts.ts').ValueFormat} ValueFormat */
  /** @typedef {import('uplot')} Plot */

  /** @type {Chart[]} */
  const charts = JSON.parse(document.getElementById('charts')?.textContent ?? '[]')
  const COLORS = 8

  /** @param {string} name */
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

  /**
   * A value with its unit, to at most five digits.
   * @param {ValueFormat} format
   * @param {number} value
   */
  const text = (format, value) => {
    if (format === 'count') return Math.round(value).toLocaleString('en-US')
    if (format === 'share') return `${(100 * value).toFixed(1)} %`
    if (format === 'bytes') return value >= 1e9 ? `${(value / 1e9).toFixed(2)} GB` : `${(value / 1e6).toFixed(0)} MB`
    return short(value)
  }

  /** @param {number} value */
  const short = (value) =>
    value !== 0 && Math.abs(value) < 1e-3
      ? value.toExponential(2).replace(/\.?0+e/, 'e')
      : String(+value.toPrecision(5))

  /**
   * Texts of the marks of an axis, which all have the digits that tell them apart.
   * @param {ValueFormat} format
   * @param {number[]} splits
   */
  const axisTexts = (format, splits) => {
    if (format === 'count') return splits.map((value) => (Number.isInteger(value) ? value.toLocaleString('en-US') : ''))
    if (format === 'share') return splits.map((value) => `${+(100 * value).toFixed(2)} %`)
    if (format === 'bytes') return splits.map((value) => `${+(value / 1e9).toFixed(3)} GB`)
    return splits.map(short)
  }

  /**
   * The names, values and colours at the cursor, beside it.
   * @param {Chart} chart
   * @param {HTMLElement} place
   * @returns {import('uplot').Plugin}
   */
  const tooltip = (chart, place) => {
    const box = document.createElement('div')
    box.className = 'tooltip'
    box.hidden = true
    place.append(box)
    /** @param {Plot} plot */
    const fill = (plot) => {
      const { left = -1, idx, idxs = [] } = plot.cursor
      box.hidden = left < 0 || idx === null || idx === undefined || !plot.over.matches(':hover')
      if (box.hidden) return
      const rows = chart.series.map((series, index) => {
        const at = idxs[index + 1]
        const value = at === null || at === undefined ? undefined : plot.data[index + 1]?.[at]
        if (value === null || value === undefined || plot.series[index + 1]?.show === false) return undefined
        const row = document.createElement('div')
        const dot = document.createElement('i')
        dot.style.background = color(`--curve-${series.color % COLORS}`)
        if (series.style === 'pale') dot.style.opacity = '0.4'
        const step = plot.data[0][at ?? 0]
        const elsewhere = step === plot.data[0][idx ?? 0] ? '' : ` (step ${step})`
        row.append(dot, `${text(chart.format, value)}  ${series.label}${elsewhere}`)
        return row
      })
      const x = plot.data[0][idx ?? 0] ?? 0
      const head = document.createElement('div')
      const near = chart.marks.filter((mark) => Math.abs(plot.valToPos(mark.x, 'x') - left) < 6)
      head.append(
        [`step ${x.toLocaleString('en-US')}`, ...near.map(({ x: at, label }) => `${label} at ${at}`)].join(', '),
      )
      box.replaceChildren(head, ...rows.filter((row) => row !== undefined))
      const edge = plot.over.offsetLeft + left
      const fits = edge + box.offsetWidth + 18 < place.clientWidth
      box.style.left = `${Math.max(0, fits ? edge + 14 : edge - box.offsetWidth - 14)}px`
    }
    return { hooks: { setCursor: fill } }
  }

  /**
   * A dashed line at each step with a mark.
   * @param {Chart} chart
   * @returns {import('uplot').Plugin}
   */
  const marks = (chart) => ({
    hooks: {
      draw: (plot) => {
        const { ctx } = plot
        const { left, top, width, height } = plot.bbox
        ctx.save()
        ctx.strokeStyle = color('--mark')
        ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio])
        ctx.lineWidth = devicePixelRatio
        for (const { x } of chart.marks) {
          const at = Math.round(plot.valToPos(x, 'x', true))
          if (at < left || at > left + width) continue
          ctx.beginPath()
          ctx.moveTo(at, top)
          ctx.lineTo(at, top + height)
          ctx.stroke()
        }
        ctx.restore()
      },
    },
  })

  /**
   * The place nearest to `index` at which a series has a value.
   * @param {Plot} plot
   * @param {number} series
   * @param {number} index
   */
  const nearest = (plot, series, index) => {
    const values = plot.data[series] ?? []
    for (let away = 0; away < values.length; away++) {
      if (values[index - away] !== null && values[index - away] !== undefined) return index - away
      if (values[index + away] !== null && values[index + away] !== undefined) return index + away
    }
    return index
  }

  /**
   * @param {Chart} chart
   * @param {HTMLElement} place
   */
  const draw = (chart, place) => {
    const size = () => ({ width: place.clientWidth, height: chart.wide ? (place.clientWidth < 600 ? 240 : 320) : 190 })
    const [ink, grid] = [color('--quiet'), color('--grid')]
    const axis = {
      stroke: ink,
      grid: { stroke: grid, width: 1 },
      ticks: { stroke: grid, width: 1 },
      font: '12px system-ui, sans-serif',
    }
    // Each series has steps of its own.
    const data = uPlot.join(chart.series.map(({ x, y }) => [[...x], [...y]]))
    const plot = new uPlot(
      {
        ...size(),
        scales: { x: { time: false, range: (_, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) } },
        axes: [
          { ...axis, space: 60, values: (_, splits) => axisTexts('count', splits) },
          { ...axis, size: 74, values: (_, splits) => axisTexts(chart.format, splits) },
        ],
        series: [
          { label: 'step' },
          ...chart.series.map(({ label, color: index, style, y }) => {
            const stroke = color(`--curve-${index % COLORS}`)
            return {
              label,
              stroke: style === 'pale' ? `${stroke}55` : stroke,
              width: style === 'pale' ? 1 : 2,
              points: { show: y.length === 1 || (style === 'dots' && y.length <= 60), size: 6, fill: stroke, stroke },
            }
          }),
        ],
        legend: { live: false },
        cursor: {
          y: false,
          dataIdx: nearest,
          points: { size: 7 },
          drag: { x: true, y: false },
          sync: { key: 'steps', scales: ['x', null] },
        },
        plugins: [tooltip(chart, place), marks(chart)],
      },
      data,
      place,
    )
    const watch = new ResizeObserver(() => plot.setSize(size()))
    watch.observe(place)
    return () => {
      watch.disconnect()
      plot.destroy()
      place.replaceChildren()
    }
  }

  /** @returns {() => void} what removes the charts again */
  const drawAll = () => {
    const undo = charts.map((chart) => {
      const place = document.querySelector(`[data-chart="${chart.id}"]`)
      return place instanceof HTMLElement ? draw(chart, place) : undefined
    })
    return () => undo.forEach((one) => one?.())
  }

  let undo = drawAll()
  // Canvases do not follow the colours of the page by themselves.
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    undo()
    undo = drawAll()
  })
})()
