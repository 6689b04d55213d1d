// Figures: plotly lies compressed in the page, is unpacked once, and draws what comes near the screen first, the rest when idle.
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
    return window.Plotly
  })()
  return plotly
}

// Data and layout as this theme shows them; a figure with a theme of its own keeps it.
function themed(figure, dark) {
  const { data, layout } = JSON.parse(figure.text, (key, value) => dark ? themes.brighter[value] ?? value : value)
  if (!layout.mlw) return JSON.parse(figure.text)
  return { data, layout: { ...layout, template: themes[dark ? "dark" : "light"], autosize: true, ...(touch ? { dragmode: false } : {}) } }
}

async function draw(figure) {
  if (figure.text) return
  figure.text = figure.querySelector("script").textContent
  const plot = figure.querySelector(".mlw-plot")
  try {
    const Plotly = await unpack()
    const config = { responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover" }
    await Plotly.newPlot(plot, { ...themed(figure, isDark()), config })
    plot.querySelectorAll(".main-svg").forEach(svg => svg.setAttribute("aria-hidden", "true")) // the label says it better
    figure.dataset.drawn = "yes"
  } catch (error) {
    plot.textContent = `This figure could not be drawn: ${error.message}. ${plot.getAttribute("aria-label")}`
    plot.style.height = "auto"
  }
}

function repaint(dark) {
  for (const figure of figures.filter(figure => figure.dataset.drawn))
    window.Plotly.react(figure.querySelector(".mlw-plot"), themed(figure, dark))
}

const whenIdle = window.requestIdleCallback ?? (work => setTimeout(work, 50))
async function drawRest() {
  for (const figure of figures) {
    await draw(figure)
    await new Promise(resolve => whenIdle(resolve, { timeout: 500 }))
  }
}

if (figures.length) {
  const near = new IntersectionObserver(
    seen => seen.filter(entry => entry.isIntersecting).forEach(entry => { near.unobserve(entry.target); draw(entry.target) }),
    { rootMargin: "400px" })
  figures.forEach(figure => near.observe(figure))
  whenIdle(drawRest, { timeout: 1500 })
  addEventListener("theme", () => repaint(isDark()))
  addEventListener("beforeprint", () => { if (isDark()) repaint(false) })
  addEventListener("afterprint", () => { if (isDark()) repaint(true) })
}

// Code: hidden until asked for.
const code = document.getElementById("code")
if (code) {
  code.hidden = false
  code.addEventListener("click", () => {
    const show = root.classList.toggle("show-code")
    document.querySelectorAll("details.code").forEach(block => { block.open = show })
    code.setAttribute("aria-pressed", show)
    code.textContent = show ? "Hide code" : "Show code"
  })
}

// Contents: say where the reader is.
const links = [...document.querySelectorAll(".contents a")]
const places = links.map(link => document.getElementById(link.hash.slice(1)))
addEventListener("scroll", () => {
  const here = places.findLastIndex(place => place.getBoundingClientRect().top < 120)
  links.forEach((link, i) => i === here ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"))
}, { passive: true })

// Outputs in a frame of their own tell how tall they are.
addEventListener("message", event => {
  const frame = [...document.querySelectorAll(".mlw-frame")].find(frame => frame.contentWindow === event.source)
  if (frame && Number.isFinite(event.data?.mlwHeight)) frame.style.height = `${Math.min(event.data.mlwHeight + 4, 5000)}px`
})
