// Search, filters, comparison and readable lines; the page stands without them.
const $ = id => document.getElementById(id)
const served = "served" in root.dataset
const STEP = 50
let rows = [], data = {}, limit = STEP, chosen = []
root.classList.add("scripted")

const unpacked = async text => new Response(new Blob([Uint8Array.from(atob(text.trim()), letter => letter.charCodeAt(0))])
  .stream().pipeThrough(new DecompressionStream("gzip"))).text()

// Runs: the older ones are unpacked once, before the first search or when asked for.
async function unpackOlder() {
  const older = $("older")
  if (!older) return
  const body = document.querySelector(".runs tbody")
  const text = older.textContent
  older.remove()
  body.insertAdjacentHTML("beforeend", await unpacked(text))
  readRows()
}

function readRows() {
  rows = [...document.querySelectorAll(".runs tbody tr")].map(row => ({ row, text: row.textContent.toLowerCase(), ...row.dataset }))
}

const picked = id => $(id)?.value ?? ""
function update() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean)
  const [status, severity, tag, param] = ["status", "severity", "tag", "param"].map(picked)
  const fits = rows.filter(({ text, ...row }) => words.every(word => text.includes(word)) &&
    (!status || row.status === status) && (!severity || row.severities.split(" ").includes(severity)) &&
    (!tag || row.tags?.split(" ").includes(tag)) && (!param || row.given?.split("\n").includes(param)))
  const seen = new Set(fits.slice(0, limit).map(({ row }) => row))
  for (const { row } of rows) row.hidden = !seen.has(row)
  const all = `${rows.length} run${rows.length === 1 ? "" : "s"}`
  $("shown").textContent = fits.length === rows.length ? all : `${fits.length} of ${all}`
  $("more").hidden = fits.length <= limit
  $("more").textContent = `Show ${Math.min(STEP, fits.length - limit)} more of ${fits.length}`
}

function startRuns() {
  if (!$("filter")) return
  readRows()
  $("filter").hidden = false
  const changed = () => { limit = STEP; update() }
  $("filter").addEventListener("input", changed)
  $("filter").addEventListener("submit", event => event.preventDefault())
  $("more").addEventListener("click", () => { limit += STEP; update() })
  document.querySelector(".runs").addEventListener("change", event => choose(event.target))
  update()
  unpackOlder().then(update)
}

// Comparison: two runs, the newer one in the second place.
function choose(box) {
  const run = box.closest("tr").dataset.run
  chosen = box.checked ? [...chosen, run].slice(-2) : chosen.filter(name => name !== run)
  showChosen()
}

function showChosen() {
  for (const { row, run } of rows) {
    const box = row.querySelector(".choose input")
    if (box) box.checked = chosen.includes(run)
  }
  const [a, b] = [...chosen].sort()
  const made = data.comparisons?.find(([, one, two]) => one === a && two === b)?.[0] ?? (served ? `compare?a=${a}&b=${b}` : "")
  $("compare").hidden = !chosen.length
  $("compare-open").hidden = !(b && made)
  $("compare-open").href = made || "#"
  $("compare-copy").hidden = !b || served
  $("compare-text").textContent = b ? `mlworkbench compare ${a} ${b}` : `${a}: choose a second run to compare with`
}

function startCompare() {
  if (!$("compare")) return
  $("compare-clear").addEventListener("click", () => { chosen = []; showChosen() })
  $("compare-copy").addEventListener("click", async () => {
    const text = $("compare-text").textContent
    try { await navigator.clipboard.writeText(text) } catch { getSelection().selectAllChildren($("compare-text")); return }
    $("compare-copy").textContent = "Copied"
    setTimeout(() => { $("compare-copy").textContent = "Copy command" }, 1500)
  })
}

// Trends: a slider over each line; the pointer moves it too.
function startTrends() {
  document.querySelectorAll(".chart").forEach((chart, i) => {
    const { r, v, y } = data.lines[i]
    if (r.length < 2) return
    const [value, when, plot, dot] = [".chart-value output", ".chart-when", ".plot", ".dot"].map(one => chart.querySelector(one))
    const said = when.textContent, slider = document.createElement("input")
    const name = chart.querySelector(".chart-name").textContent.trim()
    const place = at => `${data.runs[r[at]][1]}, run ${data.runs[r[at]][0]}`
    Object.assign(slider, { type: "range", min: 0, max: r.length - 1, value: r.length - 1 })
    slider.setAttribute("aria-label", `${name} of ${chart.closest(".group").querySelector("h3").textContent}`)
    const show = (at, quiet) => {
      slider.value = at
      slider.setAttribute("aria-valuetext", `${v[at]}, ${place(at)}`)
      value.textContent = v[at]
      when.textContent = quiet ? said : data.runs[r[at]][1]
      when.title = place(at)
      dot.style.setProperty("--x", (5 + 190 * at / (r.length - 1)) / 200)
      dot.style.setProperty("--y", y[at])
    }
    slider.addEventListener("input", () => show(+slider.value))
    slider.addEventListener("focus", () => show(+slider.value))
    const rest = () => { if (document.activeElement !== slider) show(r.length - 1, true) }
    slider.addEventListener("pointermove", event => {
      const box = plot.getBoundingClientRect(), share = ((event.clientX - box.left) / box.width * 200 - 5) / 190
      show(Math.round(Math.min(Math.max(share, 0), 1) * (r.length - 1)))
    })
    slider.addEventListener("pointerleave", rest)
    slider.addEventListener("blur", rest)
    show(r.length - 1, true)
    plot.append(slider)
  })
}

// Sweeps: a click on a heading sorts, a second one the other way; what is empty stays last.
function startSorting() {
  for (const head of document.querySelectorAll(".sorted thead th")) {
    const button = document.createElement("button"), body = head.closest("table").tBodies[0]
    button.type = "button"
    button.append(...head.childNodes)
    head.append(button)
    const cell = row => row.cells[head.cellIndex]
    button.addEventListener("click", () => {
      const way = head.ariaSort === "descending" ? 1 : -1
      head.parentNode.querySelectorAll("[aria-sort]").forEach(other => other.removeAttribute("aria-sort"))
      head.ariaSort = way < 0 ? "descending" : "ascending"
      const key = row => cell(row).dataset.value ? +cell(row).dataset.value : cell(row).textContent
      const order = (a, b) => typeof a === typeof b ? (a < b ? -1 : +(a > b)) * way : typeof a === "number" ? -1 : 1
      body.append(...[...body.rows].sort((one, two) => order(key(one), key(two))))
    })
  }
}

// Served: follow a run that goes on, and take over a page that has changed; what was typed, chosen and opened stays.
async function refresh() {
  const page = new DOMParser().parseFromString(await (await fetch("./")).text(), "text/html")
  const kept = ["search", "status", "severity", "tag", "param"].map(id => [id, picked(id)]), held = limit
  for (const id of ["content", "data"]) if (!$(id) || !page.getElementById(id)) return location.reload()
  const active = document.activeElement, at = active.selectionStart
  const parts = () => [...document.querySelectorAll("#content details")].map(part => [part.querySelector("summary").textContent, part])
  const open = new Map(parts().map(([title, part]) => [title, part.open]))
  for (const id of ["content", "data"]) $(id).replaceWith(document.adoptNode(page.getElementById(id)))
  for (const [id, value] of kept) if ($(id)) $(id).value = value
  for (const [title, part] of parts()) part.open = open.get(title) ?? part.open
  start()
  limit = held
  update()
  showChosen()
  if (active.isConnected) return
  const again = active.id ? $(active.id) : document.querySelector(`[aria-label="${CSS.escape(active.ariaLabel)}"]`)
  again?.focus({ preventScroll: true })
  if (at != null) again?.setSelectionRange(at, at)
}

async function follow(version) {
  try {
    const now = await (await fetch("status.json")).json()
    $("live").hidden = !now.said
    if ($("live").textContent !== now.said) $("live").textContent = now.said
    if (version && now.version !== version) await refresh()
    version = now.version
    setTimeout(follow, now.said ? 1000 : 4000, version)
  } catch {
    $("live").hidden = false
    $("live").textContent = "The server does not answer; this page may be out of date."
    setTimeout(follow, 5000, version)
  }
}

function start() {
  data = JSON.parse($("data").textContent)
  startRuns()
  startSorting()
  startTrends()
}
start()
startCompare()
if (served) follow()
