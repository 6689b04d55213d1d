// A queue to look through, with no kernel: filters, a list, one item. `review.js` stands before this.
function browse(root, data) {
  const selects = {}, all = data.items.map((item, number) => ({ ...item, number, text: [item.summary, item.item, ...(item.given ?? []), ...(item.suggested ?? [])].join(" ").toLocaleLowerCase() }))
  let shown = all, at = 0
  const options = (name, title, values) => {
    const select = selects[name] = make("select", { "aria-label": title }, make("option", { value: "" }, title), ...values.map(value => make("option", { value }, value)))
    select.addEventListener("change", filter)
    return values.length > (name === "finding" ? 0 : 1) ? select : null
  }
  const distinct = of => [...new Set(all.flatMap(of).filter(Boolean))]
  const state = item => item.decided ? item.decided.source === "model" ? "accepted for the model" : item.decided.action === "skip" ? "skipped" : "decided" : "waiting"
  const labels = item => [...(item.given ?? []), ...(item.suggested ?? []), ...(item.decided?.labels ?? [])]
  const find = make("input", { type: "search", "aria-label": "Search", placeholder: "Search" })
  find.addEventListener("input", filter)
  const count = make("p", { class: "mlw-count", role: "status" })
  const tools = make("div", { class: "mlw-tools" }, find, options("strategy", "All strategies", distinct(item => [item.strategy])),
    options("label", "All labels", data.labels.filter(name => all.some(item => labels(item).includes(name)))),
    options("finding", "All findings", distinct(item => item.notes.map(note => note.check))), options("state", "All states", distinct(item => [state(item)])), count)
  const list = make("ol", { role: "listbox", tabindex: "0", "aria-label": "Items of the queue" })
  const item = make("div", { class: "mlw-item", tabindex: "0", role: "group", "aria-label": "Item" })
  const known = make("div", { class: "mlw-facts", tabindex: "0", role: "group", "aria-label": "What is known of the item" })
  const rows = all.map(one => {
    const row = make("li", { role: "option", id: `${data.id}-${one.number}`, "aria-selected": "false" }, make("span", { class: "mlw-near", dir: "auto" }, one.summary || "(empty)"),
      make("span", { class: "mlw-by" }, [one.decided?.labels?.length ? `✓ ${listed(one.decided.labels)}` : "", `${listed(one.given) || "no label"}${one.suggested && !sameLabels(one.given, one.suggested) ? ` → ${listed(one.suggested)}${one.probability === null ? "" : ` ${percent(one.probability)}`}` : ""}`].filter(Boolean).join(" · ")))
    row.addEventListener("click", () => open(shown.findIndex(other => other.number === one.number)))
    return row
  })

  function filter() {
    const words = find.value.toLocaleLowerCase().split(/\s+/).filter(Boolean), chosen = name => selects[name].value, here = shown[at]?.number
    shown = all.filter(one => words.every(word => one.text.includes(word)) && (!chosen("strategy") || one.strategy === chosen("strategy"))
      && (!chosen("label") || labels(one).includes(chosen("label"))) && (!chosen("finding") || one.notes.some(note => note.check === chosen("finding")))
      && (!chosen("state") || state(one) === chosen("state")))
    list.replaceChildren(...shown.map(one => rows[one.number]))
    put(count, `${amount(shown.length)} of ${amount(all.length)}`)
    open(Math.max(shown.findIndex(one => one.number === here), 0))
  }

  function open(number) {
    rows.forEach(row => row.setAttribute("aria-selected", "false"))
    at = number
    const one = shown[at]
    if (!one) { item.replaceChildren(make("p", { class: "mlw-none" }, "No item is like this.")); known.replaceChildren(); list.removeAttribute("aria-activedescendant"); return }
    rows[one.number].setAttribute("aria-selected", "true")
    list.setAttribute("aria-activedescendant", rows[one.number].id)
    if (list.scrollHeight > list.clientHeight) {
      const row = rows[one.number]
      list.scrollTop = Math.min(Math.max(list.scrollTop, row.offsetTop + row.offsetHeight - list.clientHeight), row.offsetTop)
    }
    const decided = one.decided ? [block(one.decided.source === "model" ? "Accepted for the model" : "Decided", make("p", { class: "mlw-label" }, one.decided.action === "skip" ? "skipped" : listed(one.decided.labels)))] : []
    item.replaceChildren(...itemNodes(one))
    known.replaceChildren(...decided, ...factNodes(one))
    item.scrollTop = known.scrollTop = 0
  }

  root.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select")) return
    const step = { j: 1, k: -1, ...(event.target === list ? { ArrowDown: 1, ArrowUp: -1 } : {}) }[event.key]
    const to = step ? at + step : event.target === list ? { Home: 0, End: shown.length - 1 }[event.key] : undefined
    if (to === undefined) return
    event.preventDefault()
    event.stopPropagation()
    open(Math.min(Math.max(to, 0), Math.max(shown.length - 1, 0)))
  })
  const findings = data.findings.length ? [make("ul", { class: "mlw-said" }, ...data.findings.map(one => make("li", { class: one.severity }, one.message)))] : []
  root.replaceChildren(make("div", { class: "mlw-top" }, make("h2", {}, data.queue), make("p", { class: "mlw-count" }, data.told)), ...findings, tools,
    make("div", { class: "mlw-body" }, list, item, known), make("p", { class: "mlw-foot" }, make("kbd", {}, "j"), " next ", make("kbd", {}, "k"), ` previous. ${data.bounds}`))
  filter()
}
