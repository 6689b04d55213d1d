// Figures: plotly lies compressed in the page, is unpacked once, and draws what comes near the screen; all before printing.
const PAPER = 670 // pixels across a sheet of A4 or letter between its margins
const figures = [...document.querySelectorAll(".mlw-figure")]
const themes = JSON.parse(document.getElementById("themes").textContent)
const touch = matchMedia("(pointer: coarse)").matches
let plotly

function unpack() {
  plotly ??= (async () => {
    const packed = document.getElementById("plotly")
    const bytes = Uint8Array.from(atob(packed.textContent.trim()), letter => letter.charCodeAt(0))
    packed.remove()
    const text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text()
    const script = document.createElement("script")
    script.textContent = text
    document.head.append(script)
  })()
  return plotly
}

// Data and layout as this theme shows them; a figure with a theme of its own keeps it.
function themed(figure, dark, width) {
  const size = width ? { width, autosize: false } : { autosize: true, ...(touch ? { dragmode: false } : {}) }
  const own = JSON.parse(figure.text)
  if (!own.layout.mlw) return { data: own.data, layout: { ...own.layout, ...(width ? size : {}) } }
  const { data, layout } = dark ? JSON.parse(figure.text, (key, value) => themes.brighter[value] ?? value) : own
  return { data, layout: { ...layout, template: themes[dark ? "dark" : "light"], ...size } }
}

function draw(figure, dark = isDark(), width) {
  if (figure.text) return
  figure.text = figure.querySelector("script").textContent
  const plot = figure.querySelector(".mlw-plot")
  const failed = error => {
    plot.textContent = `This figure could not be drawn: ${error.message}. ${plot.getAttribute("aria-label")}`
    plot.style.height = "auto"
  }
  try {
    const config = { responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover" }
    const done = window.Plotly.newPlot(plot, { ...themed(figure, dark, width), config })
    plot.querySelectorAll(".main-svg").forEach(svg => svg.setAttribute("aria-hidden", "true")) // the label says it better
    figure.dataset.drawn = "yes"
    done.catch(failed)
  } catch (error) { failed(error) }
}

function repaint(dark, width) {
  for (const figure of figures.filter(figure => figure.dataset.drawn))
    window.Plotly.react(figure.querySelector(".mlw-plot"), themed(figure, dark, width))
}

// One at a time, so that the first is on the screen before the next is drawn.
const wanted = []
async function drawWanted() {
  await unpack()
  for (let figure; (figure = wanted.shift());) {
    draw(figure)
    await new Promise(resolve => setTimeout(resolve))
  }
}
const near = new IntersectionObserver(
  seen => {
    const come = seen.filter(entry => entry.isIntersecting).map(entry => entry.target)
    come.forEach(figure => near.unobserve(figure))
    if (wanted.push(...come) && wanted.length === come.length) drawWanted()
  },
  { rootMargin: "800px" })
figures.forEach(figure => near.observe(figure))
if (figures.length) unpack() // ready for the printer too
addEventListener("theme", () => repaint(isDark()))

// Paper: light, all figures, all that is folded but the code; wide figures and tables as small as they must be.
const folded = [...document.querySelectorAll("details:not(.code, .mlw-messages, .contents-small)")].filter(block => !block.open)
const tables = [...document.querySelectorAll(".mlw-scroll table")]
addEventListener("beforeprint", () => {
  folded.forEach(block => { block.open = true })
  tables.forEach(table => { if (table.scrollWidth > PAPER) table.style.zoom = Math.max(PAPER / table.scrollWidth, 0.5) })
  if (!window.Plotly) return
  repaint(false, PAPER)
  figures.forEach(figure => draw(figure, false, PAPER))
})
addEventListener("afterprint", () => {
  folded.forEach(block => { block.open = false })
  tables.forEach(table => { table.style.zoom = "" })
  if (window.Plotly) repaint(isDark())
})

// Code: hidden until asked for, but for the cell that failed.
const code = document.getElementById("code")
if (code) {
  const blocks = [...document.querySelectorAll("details.code")]
  const apart = blocks.filter(block => block.open)
  if (!blocks.length) code.remove()
  code.hidden = false
  code.addEventListener("click", () => {
    const show = root.classList.toggle("show-code")
    blocks.forEach(block => { block.open = show || apart.includes(block) })
    code.setAttribute("aria-pressed", show)
    code.textContent = show ? "Hide code" : "Show code"
  })
}

// Links to other pages lead nowhere once this one has left its folder, e.g. in an e-mail.
const run = document.querySelector(".trail").dataset.run
if (!run || !decodeURIComponent(location.pathname).includes(`/${run}/`))
  document.querySelectorAll("a.away").forEach(link => link.removeAttribute("href"))

// Contents: say where the reader is.
const links = [...document.querySelectorAll(".contents a")]
const places = links.map(link => document.getElementById(link.hash.slice(1)))
let waiting = false
function mark() {
  waiting = false
  const here = places.findLastIndex(place => place.getBoundingClientRect().top < 120)
  links.forEach((link, i) => i === here ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"))
}
if (links.length) addEventListener("scroll", () => { waiting ||= (requestAnimationFrame(mark), true) }, { passive: true })

// Outputs in a frame of their own tell how tall they are, and are told how the page looks.
const frames = [...document.querySelectorAll(".mlw-frame")]
const tint = frame => frame.contentWindow?.postMessage({ mlwLook: isDark() ? "dark" : "light" }, "*")
frames.forEach(frame => { tint(frame); frame.addEventListener("load", () => tint(frame)) })
addEventListener("theme", () => frames.forEach(tint))
addEventListener("message", event => {
  const frame = frames.find(frame => frame.contentWindow === event.source)
  if (frame && Number.isFinite(event.data?.mlwHeight)) frame.style.height = `${Math.min(event.data.mlwHeight + 4, 5000)}px`
})
