// Labels are given here by key. The next items lie ready, so that a key shows the next one at once; the kernel confirms each decision,
// and what it has not confirmed is shown and kept. `review.js` stands before this: it draws an item.
const LATE_MS = 1500, AHEAD = 40, BATCH = 20 // items that should lie ready, and that are asked for at once
const KEYS = [["Enter or a", "accept what the button says"], ["1 to 9", "give the label with this number"], ["k", "keep the given label"],
  ["s", "skip, for later"], ["u", "undo"], ["c", "comment"], ["m", "show more of a long text"], ["?", "this list"], ["Esc", "close, or leave to the notebook"]]
const button = (key, text, run, facts = {}) => {
  const name = make("span", { class: "mlw-does" }, text)
  const node = make("button", { type: "button", ...facts }, key ? make("kbd", { "aria-hidden": "true" }, key) : null, name)
  node.name_ = name
  node.addEventListener("click", event => { if (node.getAttribute("aria-disabled") !== "true") run(event) })
  return node
}
const able = (node, yes) => node.setAttribute("aria-disabled", String(!yes))
let count = 0

class LabelReview {
  constructor(model, el) {
    this.model = model
    this.facts = model.get("facts")
    this.names = this.facts.labels.map(label => label.name)
    this.queue = []        // the items to come, the current one first
    this.past = []         // {item, labels} decided here, for undo
    this.waiting = new Map()  // id -> {message, item, since}: not confirmed yet
    this.asked = new Map()    // id -> resolve
    this.alerts = []
    this.chosen = []
    this.hosts = new Set(this.facts.hosts)
    this.gone = this.late = this.ended = false
    this.seen = {}
    this.status = model.get("status")
    this.build(el)
    this.take(model.get("page"))
    this.onStatus = () => { this.learn(model.get("status")); this.settle() }
    this.onMessage = message => this.hear(message)
    this.onComm = () => this.lose()
    model.on("change:status", this.onStatus)
    model.on("msg:custom", this.onMessage)
    model.on("comm_live_update", this.onComm)
    this.clock = setInterval(() => this.tick(), 400)
    this.leave = () => this.keep()
    addEventListener("pagehide", this.leave)
    this.offer()
    this.settle()
    this.show()
  }

  close() {
    clearInterval(this.clock)
    removeEventListener("pagehide", this.leave)
    this.keep()
    for (const [name, run] of [["change:status", this.onStatus], ["msg:custom", this.onMessage], ["comm_live_update", this.onComm]]) this.model.off(name, run)
  }

  // ---- what is on the screen

  build(el) {
    const facts = this.facts, id = `mlw-${Math.random().toString(36).slice(2)}`
    this.count = make("span", { class: "mlw-count" })
    this.pace = make("span", { class: "mlw-pace" })
    this.why = make("span", { class: "mlw-why" })
    this.help = button("?", "Keys and labels", () => this.open("help"))
    const writing = facts.project ? button("", "Write back to Label Studio", () => this.writeBack(), { class: "mlw-quiet" }) : null
    const top = make("div", { class: "mlw-top" }, make("h2", {}, facts.queue), this.count, this.pace, writing, this.help)
    this.fill = make("span")
    this.bar = make("div", { class: "mlw-progress", role: "progressbar", "aria-label": "Items decided", "aria-valuemin": "0" }, this.fill)
    this.item = make("div", { class: "mlw-item", tabindex: "0", role: "group", "aria-label": "Item" })
    this.known = make("div", { class: "mlw-facts", tabindex: "0", role: "group", "aria-label": "What is known of the item" })
    this.over = make("div", { class: "mlw-over", role: "dialog", hidden: "" })
    this.body = make("div", { class: "mlw-body" }, this.item, this.known, this.over)
    this.labels = make("div", { class: "mlw-labels", role: "group", "aria-label": facts.multilabel ? "Labels of this item" : "Give a label" })
    this.chips = facts.labels.slice(0, 9).map((label, number) => this.chip(label, number))
    this.labels.classList.toggle("tall", facts.labels.slice(0, 9).some(label => label.name.length > 19))
    this.labels.append(...this.chips.map(chip => chip.node))
    if (facts.labels.length > 9) this.labels.append(this.all = button("/", `All ${facts.labels.length} labels`, () => this.open("list"), { class: "mlw-chip" }))
    this.doAccept = button("⏎", "", () => this.accept(), { class: "mlw-accept" })
    this.doKeep = button("k", "Keep given", () => this.keepGiven())
    this.doSkip = button("s", "Skip", () => this.decide("skip", []))
    this.doUndo = button("u", "Undo", () => this.undo())
    this.doComment = button("c", "Comment", () => this.open("comment"))
    const actions = make("div", { class: "mlw-actions", role: "group", "aria-label": "Decide" }, this.doAccept, this.doKeep, this.doSkip, this.doUndo, this.doComment)
    this.agree = make("p", { class: "mlw-agree" })
    this.saved = make("p", { class: "mlw-saved" })
    this.told = make("div", { class: "mlw-alerts", role: "alert" })
    this.said = make("p", { class: "mlw-hidden", role: "status", "aria-live": "polite" })
    const keys = make("p", { class: "mlw-hidden", id }, KEYS.map(([key, does]) => `${key}: ${does}`).join("; "))
    this.root = make("section", { class: "mlw-review mlw-labelling", tabindex: "0", "aria-label": `Review of ${facts.queue}`, "aria-describedby": id },
      top, this.bar, this.body, this.labels, actions, make("div", { class: "mlw-foot" }, this.agree, this.saved), this.told, this.said, keys)
    this.root.style.setProperty("--tall", `${facts.height}rem`)
    this.root.addEventListener("keydown", event => this.key(event))
    this.root.addEventListener("click", event => { // after a click the keys are for the review again, not for the button
      if (event.detail && !event.target.closest("input, textarea, select, a, .mlw-over")) this.root.focus({ preventScroll: true })
    })
    el.replaceChildren(this.root)
  }

  chip(label, number) {
    const tag = make("span", { class: "mlw-tag" }), fill = make("span", { class: "mlw-fill", "aria-hidden": "true" })
    const node = make("button", { type: "button", class: "mlw-chip", title: label.definition || undefined },
      make("kbd", { "aria-hidden": "true" }, String(number + 1)), make("span", { class: "mlw-does" }, label.name), tag, fill)
    node.addEventListener("click", () => this.give(label.name))
    return { node, tag, fill, name: label.name }
  }

  show() {
    const item = this.queue[0]
    this.shut()
    if (item) {
      this.chosen = item.again ?? (item.suggested ?? item.given ?? []).filter(name => this.names.includes(name))
      this.item.replaceChildren(...itemNodes(item, { more: (column, from) => this.ask({ do: "text", item: item.item, column, from }), hosts: this.hosts }))
      this.known.replaceChildren(...factNodes(item))
    } else {
      this.item.replaceChildren(...this.end())
      this.known.replaceChildren()
    }
    this.item.scrollTop = this.known.scrollTop = 0
    this.mark()
    this.numbers()
    put(this.said, item ? [`Item ${amount(item.position + 1)}`, item.summary, `given ${listed(item.given) || "none"}`,
      item.suggested && `suggested ${listed(item.suggested)}${item.probability === null ? "" : `, ${percent(item.probability)}`}`].filter(Boolean).join(". ") : this.item.textContent)
  }

  end() {
    const { progress } = this.status
    if (this.waiting.size || progress.left) return [make("p", { class: "mlw-none" }, this.gone ? "The kernel has gone." : "Waiting for the kernel …")]
    const again = progress.skipped ? [make("p", {}, button("r", `Go through the ${amount(progress.skipped)} skipped`, () => this.ask({ do: "revisit" })))] : []
    return [make("div", { class: "mlw-end" }, make("h3", {}, "Everything is decided"),
      make("p", {}, `${amount(progress.done)} decided, ${amount(progress.skipped)} skipped.`), ...again)]
  }

  mark() {
    const item = this.queue[0], several = this.facts.multilabel
    for (const { node, tag, fill, name } of this.chips) {
      const given = item?.given?.includes(name), suggested = item?.suggested?.includes(name)
      const sure = suggested && item.probability !== null ? ` ${percent(item.probability)}` : ""
      put(tag, [given && "given", suggested && `suggested${sure}`].filter(Boolean).join(" · "))
      fill.style.width = suggested ? `${100 * (item.probability ?? 1)}%` : "0"
      node.classList.toggle("suggested", !!suggested)
      if (several) node.setAttribute("aria-pressed", String(!!item && this.chosen.includes(name)))
      able(node, !!item && !this.gone)
    }
    if (this.all && several) put(this.all.name_, this.chosen.some(name => this.names.indexOf(name) > 8) ? `also ${this.chosen.filter(name => this.names.indexOf(name) > 8).join(", ")}` : `All ${this.names.length} labels`)
    const labels = item && this.offered()
    put(this.doAccept.name_, labels ? `Accept ${listed(labels)}` : item ? "Nothing is suggested" : "Accept")
    able(this.doAccept, !!labels && !this.gone)
    able(this.doKeep, !!item?.given && item.given.every(name => this.names.includes(name)) && !this.gone)
    able(this.doSkip, !!item && !this.gone)
    able(this.doComment, !!item && !this.gone)
    able(this.doUndo, !this.gone && (this.past.length > 0 || this.status.undoable > 0))
  }

  numbers() {
    const status = this.status, { done, skipped, total } = status.progress, over = done + skipped
    put(this.count, `${amount(done)} of ${amount(total)} decided${skipped ? `, ${amount(skipped)} skipped` : ""}`)
    put(this.pace, status.pace)
    for (const [name, value] of [["aria-valuemax", total || 1], ["aria-valuenow", over], ["aria-valuetext", `${done} of ${total}`]]) this.bar.setAttribute(name, value)
    this.fill.style.width = `${(100 * over) / (total || 1)}%`
    const shares = [["given label", "given"], ["suggestion", "suggestion"], ["votes", "votes"]].map(([text, name]) => {
      const { same, of } = status.agreement[name]
      return of ? `${text} ${Math.round((100 * same) / of)} % of ${amount(of)}` : ""
    }).filter(Boolean)
    put(this.agree, shares.length ? `Agreement with: ${shares.join(" · ")}` : "Agreement: shown after the first decision")
    const number = this.waiting.size, last = this.past.at(-1)
    this.saved.classList.toggle("late", this.late || this.gone)
    put(this.saved, this.gone ? "The kernel has gone" : number && this.late ? `${amount(number)} not saved yet: the kernel is busy`
      : number ? "Saving …" : last ? `✓ ${last.said}` : status.project_note || "Decisions are saved as you go")
    const notices = status.notices.filter(text => !this.seen[text]).map(text => ({ kind: "note", text, buttons: [["Dismiss", () => { this.seen[text] = true }]] }))
    const alerts = [...this.alerts, ...notices], key = JSON.stringify(alerts)
    if (key === this.drawn) return
    this.drawn = key
    this.told.replaceChildren(...alerts.map(one => make("div", { class: `mlw-alert ${one.kind}` }, make("p", { dir: "auto" }, one.text), ...one.buttons.map(([text, run]) =>
      button("", text, () => { run(); this.drawn = ""; this.numbers(); this.root.focus({ preventScroll: true }) })))))
  }

  // ---- what the keys do

  key(event) {
    if (event.isComposing) return
    const typing = event.target.closest("input, textarea, select"), bare = !(event.ctrlKey || event.metaKey || event.altKey)
    if (bare && (event.key !== "Escape" || !this.over.hidden)) event.stopPropagation() // the notebook has its own meaning for plain keys
    if (typing || !bare || event.shiftKey && !["?", "/"].includes(event.key)) return
    if (event.target.closest("button, a") && (event.key === "Enter" || event.key === " ")) return
    const run = this.meaning(event.key)
    if (!run) return
    event.preventDefault()
    if (!event.repeat) run() // a key held down decides once
  }

  meaning(key) {
    if (key === "Escape") return this.over.hidden ? null : () => this.shut(true)
    if (key === "?") return () => this.open("help")
    if (!this.over.hidden) return null
    const press = node => () => node.click()
    const keys = { Enter: press(this.doAccept), a: press(this.doAccept), k: press(this.doKeep), s: press(this.doSkip), u: press(this.doUndo),
      c: press(this.doComment), m: () => [...this.item.querySelectorAll(".mlw-field button")].find(node => !node.hidden)?.click(),
      r: () => this.item.querySelector(".mlw-end button")?.click(), "/": this.all && press(this.all) }
    const chip = /^[1-9]$/.test(key) && this.chips[key - 1]
    return chip ? press(chip.node) : keys[key.length === 1 ? key.toLowerCase() : key]
  }

  offered() {
    const item = this.queue[0], labels = this.facts.multilabel ? this.names.filter(name => this.chosen.includes(name)) : item.suggested ?? item.given
    return labels && labels.every(name => this.names.includes(name)) ? labels : null
  }
  accept() { this.decide("label", this.offered()) }
  keepGiven() { this.decide("label", this.queue[0].given) }
  give(name) {
    if (!this.queue[0] || this.gone) return
    if (!this.facts.multilabel) return this.decide("label", [name])
    this.chosen = this.chosen.includes(name) ? this.chosen.filter(other => other !== name) : [...this.chosen, name]
    this.mark()
  }

  decide(action, labels) {
    const item = this.queue.shift()
    if (!item || !labels) return
    this.past.push({ item, labels, said: `${action === "skip" ? "skipped" : listed(labels)}: \u2068${item.summary.slice(0, 60)}\u2069` })
    this.send({ do: action, item: item.item, labels, content: item.content }, item)
    this.show()
    this.fetch()
  }

  undo() {
    const last = this.past.pop()
    if (last) {
      const kept = this.facts.multilabel ? last.labels : undefined
      this.queue.unshift({ ...last.item, again: kept })
      this.send({ do: "undo", item: last.item.item }, null)
      this.show()
    } else this.send({ do: "undo", item: null }, null)
  }

  async writeBack() {
    const alert = { kind: "note", text: "Writing back to Label Studio …", buttons: [] }
    this.alerts.push(alert)
    this.numbers()
    const reply = await this.ask({ do: "write_back" }, 600_000)
    Object.assign(alert, { kind: reply?.ok ? "note" : "bad", text: reply?.text || reply?.error || "The kernel did not answer.", buttons: [["Dismiss", () => this.drop(alert)]] })
    this.numbers()
  }

  // ---- what lies over the item: keys and labels, the list of all labels, a comment

  open(what) {
    if (!this.over.hidden && this.over.dataset.what === what) return this.shut(true)
    const [title, ...nodes] = { help: () => this.helpNodes(), list: () => this.listNodes(), comment: () => this.commentNodes() }[what]()
    this.over.dataset.what = what
    this.over.setAttribute("aria-label", title)
    const close = button("Esc", "Close", () => this.shut(true))
    this.over.replaceChildren(make("div", { class: "mlw-over-top" }, make("h3", {}, title), close), ...nodes)
    this.over.hidden = false
    const first = this.over.querySelector("input, textarea") ?? close
    first.focus({ preventScroll: true })
  }
  shut(back) {
    const inside = this.over.contains(document.activeElement)
    this.over.hidden = true
    if (back || inside) this.root.focus({ preventScroll: true })
  }

  helpNodes() {
    const keys = this.facts.labels.length > 9 ? [...KEYS.slice(0, 2), ["/", "all labels, to search"], ...KEYS.slice(2)] : KEYS
    const rows = keys.map(([key, does]) => make("tr", {}, make("th", { scope: "row" }, make("kbd", {}, key)), make("td", {}, does)))
    const meaning = label => make("li", {}, make("b", {}, label.name), make("p", {}, label.definition || "no definition"), label.examples.length ? make("p", { class: "mlw-none" }, `e.g. ${label.examples.join("; ")}`) : null)
    return ["Keys and labels", make("div", { class: "mlw-two", tabindex: "0", role: "group", "aria-label": "Keys and labels" }, make("table", {}, make("tbody", {}, ...rows)),
      make("ul", {}, ...this.facts.labels.slice(0, 200).map(meaning)))]
  }

  listNodes() {
    const id = `mlw-list-${++count}`, several = this.facts.multilabel
    const find = make("input", { type: "search", role: "combobox", "aria-label": "Find a label", "aria-expanded": "true", "aria-controls": id, placeholder: "Find a label", autocomplete: "off" })
    const list = make("ul", { role: "listbox", id, "aria-label": "Labels", ...(several ? { "aria-multiselectable": "true" } : {}) })
    let at = 0, shown = []
    const pick = label => { if (several) { this.give(label.name); draw() } else { this.shut(true); this.give(label.name) } }
    const draw = () => {
      const words = find.value.toLocaleLowerCase().split(/\s+/).filter(Boolean)
      const has = (...texts) => words.every(word => texts.join(" ").toLocaleLowerCase().includes(word))
      const named = this.facts.labels.filter(label => has(label.name))
      const rest = this.facts.labels.filter(label => !has(label.name) && has(...label.path, label.definition, ...label.aliases))
      shown = [...named, ...rest].slice(0, 200)
      at = Math.min(at, Math.max(shown.length - 1, 0))
      list.replaceChildren(...shown.map((label, number) => {
        const on = several ? this.chosen.includes(label.name) : number === at
        const node = make("li", { role: "option", id: `${id}-${number}`, "aria-selected": String(on), class: number === at ? "at" : "" },
          make("span", { class: "mlw-tick", "aria-hidden": "true" }, several && on ? "✓" : ""), make("span", {}, label.name),
          make("span", { class: "mlw-none" }, [label.path.slice(0, -1).join(" › "), label.definition].filter(Boolean).join(": ")))
        node.addEventListener("click", () => { at = number; pick(label) })
        return node
      }))
      if (shown.length) find.setAttribute("aria-activedescendant", `${id}-${at}`)
      else { find.removeAttribute("aria-activedescendant"); list.append(make("li", { role: "option", "aria-selected": "false", "aria-disabled": "true", class: "mlw-none" }, "no such label")) }
      list.children[at]?.scrollIntoView({ block: "nearest" })
    }
    find.addEventListener("input", () => { at = 0; draw() })
    find.addEventListener("keydown", event => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key]
      if (step) { at = (at + step + shown.length) % (shown.length || 1); draw() }
      else if (event.key === "Enter" && shown[at]) pick(shown[at])
      else if (event.key === "Escape") this.shut(true)
      else return
      event.preventDefault()
      event.stopPropagation()
    })
    draw()
    return ["All labels", find, list]
  }

  commentNodes() {
    const item = this.queue[0]
    const text = make("textarea", { rows: "4", "aria-label": "Comment on this item", placeholder: "What should the others know about this item?", dir: "auto" })
    const save = () => {
      const said = text.value.trim()
      this.shut(true)
      if (!said) return
      item.comments = [...item.comments, { annotator: this.facts.annotator, text: said }]
      this.send({ do: "comment", item: item.item, text: said }, item)
      this.known.replaceChildren(...factNodes(item))
      this.numbers()
    }
    text.addEventListener("keydown", event => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) save()
      else if (event.key === "Escape") this.shut(true)
      else return
      event.preventDefault()
      event.stopPropagation()
    })
    return ["Comment", make("p", { class: "mlw-about", dir: "auto" }, item.summary), text, make("p", {}, button("⏎", "Save comment", save), " ", make("span", { class: "mlw-none" }, "Shift+Enter begins a new line"))]
  }

  // ---- between here and the kernel

  take(page, instead) {
    if (!page || page.version !== this.status.version) return
    const known = new Set([...(instead ? [] : this.queue), ...[...this.waiting.values()].map(one => one.item)].map(item => item?.position))
    const fresh = page.items.filter(item => !known.has(item.position))
    this.queue = instead ? fresh : [...this.queue, ...fresh]
    this.ended = page.items.length < page.count && !page.cut
  }

  async fetch(from) {
    const instead = from !== undefined
    if (this.fetching && !instead || !instead && (this.ended || this.queue.length >= AHEAD)) return
    const last = this.queue.at(-1) ?? this.past.at(-1)?.item
    const mine = this.fetching = {}
    const reply = await this.ask({ do: "page", from: instead ? from : (last?.position ?? -1) + 1, count: BATCH }, 60_000)
    if (this.fetching !== mine) return
    this.fetching = null
    const empty = !this.queue.length
    if (reply?.page) this.take(reply.page, instead)
    if (instead || empty && this.queue.length) this.show()
    this.settle()
  }

  settle() { // what the kernel says holds, once it has heard all
    const status = this.status
    if (this.version !== status.version) {
      if (this.version !== undefined) { this.past = []; this.ended = false; this.fetch(status.position ?? 0) }
      this.version = status.version
    } else if (!this.waiting.size && !this.fetching) {
      const at = status.position === null ? this.queue.length : this.queue.findIndex(item => item.position === status.position)
      if (at > 0 || at < 0) this.past = [] // decided elsewhere, e.g. by a function in another cell
      if (at > 0) { this.queue.splice(0, at); this.ended = status.position === null; this.show() }
      else if (at < 0) this.fetch(status.position)
      else if (status.position === null && !this.queue.length) this.show()
    }
    if (!this.fetching) this.fetch()
    this.numbers()
    this.mark()
  }

  send(message, item) {
    const id = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`
    this.waiting.set(id, { message: { ...message, id }, item, since: performance.now() })
    this.post({ ...message, id })
    this.numbers()
  }
  post(message) {
    try { Promise.resolve(this.model.send(message)).catch(() => this.lose()) } catch { this.lose() }
  }
  ask(message, patience = 20_000) {
    const id = `ask-${++count}-${Math.random()}`
    return new Promise(resolve => {
      this.asked.set(id, resolve)
      setTimeout(() => { if (this.asked.delete(id)) resolve(null) }, patience)
      this.post({ ...message, id })
    })
  }

  // Messages of two threads of the kernel may come in another order than they were sent: the newest holds.
  learn(status) { if (status && status.step >= this.status.step) this.status = status }

  hear(reply) {
    this.gone = false
    this.learn(reply.status)
    const resolve = this.asked.get(reply.re)
    if (resolve) { this.asked.delete(reply.re); return resolve(reply) }
    const one = this.waiting.get(reply.re)
    if (!one) return
    this.waiting.delete(reply.re)
    if (!reply.ok) this.fail(one, reply.error)
    if (!this.waiting.size) this.late = false
    this.keep()
    this.settle()
  }

  fail({ message, item }, error) {
    this.past = message.do === "undo" ? [] : this.past.filter(one => one.item.item !== message.item)
    if (message.do === "undo") this.fetch(this.status.position ?? 0)
    const what = { label: `${item?.summary ?? message.item} → ${listed(message.labels)}`, skip: `${item?.summary ?? message.item} → skipped`, comment: `comment “${message.text}”` }[message.do] ?? message.do
    const alert = { kind: "bad", text: `Not saved: ${what}. ${error}`, buttons: [] }
    alert.buttons = [["Dismiss", () => this.drop(alert)]]
    this.alerts.push(alert)
  }
  drop(alert) { this.alerts = this.alerts.filter(one => one !== alert) }

  lose() {
    if (this.gone) return
    this.gone = true
    this.keep()
    const number = this.waiting.size
    const kept = number ? ` ${number === 1 ? "One decision is" : `${number} decisions are`} not saved: ${[...this.waiting.values()].map(one => one.item?.summary.slice(0, 40) ?? one.message.do).slice(0, 5).join("; ")}. This browser keeps ${number === 1 ? "it" : "them"} and offers to save ${number === 1 ? "it" : "them"} when the cell has been run again.` : " All decisions are saved."
    this.alerts.push({ kind: "bad", text: `The kernel has gone.${kept} Run the cell again to go on.`, buttons: [] })
    this.numbers()
    this.mark()
  }

  tick() {
    const kernel = this.model.widget_manager?.kernel
    if (["dead", "restarting", "autorestarting", "terminating"].includes(kernel?.status)) this.lose()
    const now = performance.now(), late = [...this.waiting.values()].some(one => now - one.since > LATE_MS)
    if (late && !this.late) this.keep()
    if (late !== this.late) { this.late = late; this.numbers() }
  }

  // What was not confirmed lies in this browser until it is.
  get place() { return `mlw-review:${this.facts.key}` }
  keep() {
    const left = [...this.waiting.values()].filter(one => ["label", "skip", "comment"].includes(one.message.do))
    try {
      const others = JSON.parse(localStorage.getItem(this.place) ?? "[]").filter(one => this.offers?.includes(one.message.id))
      const all = [...others, ...left.map(one => ({ message: one.message, summary: one.item?.summary ?? "" }))]
      if (all.length) localStorage.setItem(this.place, JSON.stringify(all))
      else localStorage.removeItem(this.place)
    } catch { /* no storage here: the alert names what is not saved */ }
  }
  offer() {
    let left = []
    try { left = JSON.parse(localStorage.getItem(this.place) ?? "[]") } catch { return }
    if (!left.length) return
    this.offers = left.map(one => one.message.id)
    const done = save => () => {
      this.offers = []
      this.drop(alert)
      if (save) for (const one of left) this.send({ ...one.message, again: true }, null)
      this.keep()
    }
    const alert = { kind: "bad", text: `${left.length === 1 ? "One decision" : `${left.length} decisions`} had not reached the kernel: ${left.map(one => `${one.summary.slice(0, 40)} → ${listed(one.message.labels ?? [])}`).slice(0, 5).join("; ")}`,
      buttons: [["Save now", done(true)], ["Forget", done(false)]] }
    this.alerts.push(alert)
  }
}

function render({ model, el }) {
  const view = new LabelReview(model, el)
  return () => view.close()
}
export default { render }
