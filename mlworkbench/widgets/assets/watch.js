// Shows `view`, texts only, and says `said`, the changes of status, to screen readers. Nodes stay where they are while
// their text changes: what has the focus keeps it.
const make = (tag, facts = {}, ...children) => {
  const node = document.createElement(tag)
  for (const [name, value] of Object.entries(facts)) node.setAttribute(name, value)
  node.append(...children)
  return node
}
const put = (node, text) => { if (node.textContent !== text) node.textContent = text }
const set = (node, name, value) => { if (node.getAttribute(name) !== value) node.setAttribute(name, value) }

const base = () => {
  try { return JSON.parse(document.getElementById("jupyter-config-data").textContent).baseUrl } catch { return null }
}

class Bar {
  constructor(label) {
    this.fill = make("span")
    this.node = make("span", { role: "progressbar", "aria-valuemin": "0", "aria-label": label, class: "mlw-progress" }, this.fill)
  }
  show(done, of, text) {
    this.node.hidden = !of
    set(this.node, "aria-valuemax", String(of || 1))
    set(this.node, "aria-valuenow", String(done))
    set(this.node, "aria-valuetext", text)
    this.fill.style.width = `${(100 * done) / (of || 1)}%`
  }
}

class Row {
  constructor(name) {
    this.name = make("span")
    this.mark = make("span", { "aria-hidden": "true", class: "mlw-mark" })
    this.word = make("span")
    this.bar = new Bar(name)
    this.detail = make("span")
    const cell = (kind, ...children) => make("td", { class: kind }, ...children)
    this.time = cell("mlw-time")
    this.findings = cell("mlw-findings")
    this.status = cell("mlw-status", this.mark, this.word)
    this.head = make("th", { scope: "row" }, this.name)
    this.node = make("tr", {}, this.head, this.status, this.time, cell("mlw-detail", this.bar.node, this.detail), this.findings)
  }
  show(step) {
    this.link(step)
    put(this.name, step.name)
    put(this.mark, step.mark)
    put(this.word, step.text)
    set(this.node, "data-tone", step.status === "running" ? "busy" : step.tone)
    put(this.time, step.time)
    const words = [step.detail, step.left].filter(Boolean).join(", ")
    put(this.detail, words)
    const cells = step.status === "running" ? step.cells || 0 : 0
    this.bar.show(Math.max((step.cell || 1) - 1, 0), cells, words)
    put(this.findings, step.findings)
  }
  link(step) {
    const at = step.link && base()
    const href = at ? at + step.link.split("/").map(encodeURIComponent).join("/") : null
    if (href && this.name.tagName !== "A") {
      const link = make("a", { target: "_blank", rel: "noopener" })
      this.name.replaceWith(link)
      this.name = link
    }
    if (href) {
      set(this.name, "href", href)
      set(this.name, "title", step.link.startsWith("lab/") ? "the notebook as it runs" : "the page of this step")
    }
  }
}

function render({ model, el }) {
  const said = make("p", { class: "mlw-hidden", role: "status", "aria-live": "polite" })
  const title = make("strong"), badge = make("span", { class: "mlw-badge" }), headline = make("p", { class: "mlw-headline" })
  const bar = new Bar("Steps done"), about = make("p", { class: "mlw-about" }), notes = make("ul", { class: "mlw-notes" })
  const caption = make("caption", { class: "mlw-hidden" }), body = make("tbody")
  const heads = ["Step", "Status", "Time", "Where it is, what it found", "Findings"].map(text => make("th", { scope: "col" }, text))
  const table = make("table", {}, caption, make("thead", {}, make("tr", {}, ...heads)), body)
  const scroll = make("div", { class: "mlw-scroll", tabindex: "0", role: "region", "aria-label": "Steps" }, table)
  const section = make("section", { class: "mlw-watch", "aria-label": "Run" }, make("p", { class: "mlw-head" }, title, badge),
    about, headline, bar.node, scroll, notes, said)
  el.replaceChildren(section)
  let rows = new Map()

  const show = () => {
    const view = model.get("view")
    put(title, [view.project, view.run].filter(Boolean).join(", run "))
    put(badge, [view.mark, view.text].filter(Boolean).join(" "))
    set(badge, "data-tone", view.status === "running" ? "busy" : view.tone)
    put(headline, view.headline)
    put(about, view.about.join("; "))
    put(caption, `Steps of run ${view.run}`)
    bar.show(view.done, view.status === "running" ? view.steps.length : 0, `${view.done} of ${view.steps.length} steps done`)
    scroll.hidden = !view.steps.length
    if (view.steps.map(step => step.name).join("\n") !== [...rows.keys()].join("\n")) {
      rows = new Map(view.steps.map(step => [step.name, new Row(step.name)]))
      body.replaceChildren(...[...rows.values()].map(row => row.node))
    }
    view.steps.forEach(step => rows.get(step.name).show(step))
    if (view.notes.join("\n") !== [...notes.children].map(node => node.textContent).join("\n"))
      notes.replaceChildren(...view.notes.map(text => make("li", {}, text)))
  }
  const say = () => put(said, model.get("said"))
  model.on("change:view", show)
  model.on("change:said", say)
  show()
  return () => {
    model.off("change:view", show)
    model.off("change:said", say)
  }
}
export default { render }
