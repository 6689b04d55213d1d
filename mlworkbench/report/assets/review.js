// An item to be judged, as nodes: everything that comes from the data is put in as text, never as HTML.
const make = (tag, facts = {}, ...children) => {
  const node = document.createElement(tag)
  for (const [name, value] of Object.entries(facts)) if (value !== undefined && value !== null) node.setAttribute(name, value)
  node.append(...children.filter(child => child !== null && child !== undefined))
  return node
}
const put = (node, text) => { if (node.textContent !== text) node.textContent = text }
const amount = number => number.toLocaleString("en-US")
const percent = share => `${share > 0.99 && share < 1 || share > 0 && share < 0.01 ? (Math.floor(share * 1000) / 10).toFixed(1) : Math.round(share * 100)} %`
const listed = labels => labels === null || labels === undefined ? "" : labels.length ? labels.join(", ") : "no label"
const sameLabels = (a, b) => !!a && !!b && a.length === b.length && a.every(label => b.includes(label))

function pieceNodes(field) {
  const strongest = Math.max(...field.marks.map(mark => Math.abs(mark.weight ?? 0)), 1e-9)
  return field.pieces.map(([text, numbers]) => {
    if (!numbers.length) return document.createTextNode(text)
    const on = numbers.map(number => field.marks[number]), rules = on.filter(mark => mark.kind === "rule")
    const words = on.filter(mark => mark.kind !== "rule")
    const kinds = [rules.length && "rule", words.length && (words[0].weight < 0 ? "against" : "model")].filter(Boolean)
    const said = [...rules.map(mark => `rule ${mark.name}: ${mark.label}`),
      ...words.map(mark => `${mark.weight < 0 ? "against" : "for"} ${mark.label}`)].join("; ")
    const node = make("mark", { class: kinds.join(" "), title: said }, text)
    if (words.length) node.style.setProperty("--weight", `${(1.5 + 3 * Math.abs(words[0].weight ?? 0) / strongest).toFixed(1)}px`)
    return node
  })
}

function textField(field, more) {
  if (field.missing || !field.total) return make("p", { class: "mlw-none" }, field.missing ? "(missing)" : "(empty)")
  const words = make("div", { class: "mlw-words", dir: "auto" }, ...pieceNodes(field))
  if (field.end >= field.total) return words
  const button = make("button", { type: "button" }), left = make("p", { class: "mlw-none" })
  const say = end => {
    put(button, "Show more")
    put(left, `${amount(end)} of ${amount(field.total)} characters shown`)
    button.hidden = !more || end >= field.total
    left.hidden = end >= field.total
  }
  button.addEventListener("click", async () => {
    const part = await more(field.column, field.end)
    if (!part || part.end <= field.end) return
    words.append(...pieceNodes(part))
    field.end = part.end
    say(part.end)
  })
  say(field.end)
  return make("div", {}, words, left, button)
}

function pictureField(field, hosts) {
  const box = make("div", { class: "mlw-picture" })
  const show = source => box.replaceChildren(make("img", { src: source, alt: `${field.column} of this item`, referrerpolicy: "no-referrer" }))
  if (field.source) show(field.source)
  else if (field.url && hosts?.has(field.host)) show(field.url)
  else if (field.url && hosts) {
    const button = make("button", { type: "button" }, `Show pictures from ${field.host}`)
    button.addEventListener("click", () => { hosts.add(field.host); show(field.url) })
    box.append(make("p", {}, button, make("br"), make("span", { class: "mlw-none" }, field.url)))
  } else box.append(make("p", { class: "mlw-none" }, field.said ?? field.url))
  return box
}

function tableField(field) {
  const head = make("tr", {}, ...field.names.map(name => make("th", { scope: "col" }, name)))
  const rows = field.rows.map(row => make("tr", {}, ...row.map(text => make("td", { dir: "auto" }, text))))
  if (!field.names.length) return make("p", { class: "mlw-none" }, "(empty)")
  const rest = field.total - field.rows.length
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))
  const wide = make("div", { class: "mlw-wide", tabindex: "0", role: "group", "aria-label": field.column }, table)
  return make("div", {}, wide, rest > 0 ? make("p", { class: "mlw-none" }, `${amount(rest)} more rows`) : null)
}

const valuesField = field => make("table", {}, make("tbody", {}, ...field.values.map(([name, text]) =>
  make("tr", {}, make("th", { scope: "row" }, name), make("td", { dir: "auto" }, text)))))

// The item's own content. `more(column, from)` brings the next part of a long text, `hosts` are those whose pictures may be shown.
function itemNodes(item, { more, hosts } = {}) {
  let texts = 0
  const drawn = { text: field => textField(field, more), image: field => pictureField(field, hosts), table: tableField, value: valuesField }
  const fields = item.fields.map(field => {
    const first = field.kind === "text" && !texts++ ? ` first${field.total > 160 || item.fields.length < 2 && field.total > 90 ? " long" : ""}` : ""
    return make("div", { class: `mlw-field${first}` }, field.column ? make("span", { class: "mlw-name" }, field.column) : null, drawn[field.kind](field))
  })
  return [...fields, legend(item)]
}

function legend(item) {
  const marks = item.fields.flatMap(field => field.marks ?? []), seen = new Map()
  for (const mark of marks) {
    const against = mark.kind !== "rule" && mark.weight < 0, kind = mark.kind === "rule" ? "rule" : against ? "against" : "model"
    const [name, text] = kind === "rule" ? [mark.name, `rule for ${mark.label}`] : ["words", `${against ? "against" : "for"} ${mark.label}`]
    seen.set(`${name} ${text}`, [kind, name, text])
  }
  const entries = [...seen.values()].slice(0, 8).map(([kind, name, text]) => make("span", {}, make("mark", { class: kind }, name), ` ${text}`))
  return make("p", { class: "mlw-legend" }, ...entries)
}

const bar = share => {
  const fill = make("span")
  fill.style.width = `${100 * share}%`
  return make("p", { class: "mlw-chance" }, make("span", { class: "mlw-gauge", "aria-hidden": "true" }, fill), make("span", {}, percent(share)))
}
const block = (title, ...children) => make("div", {}, make("h3", {}, title), ...children)

// What is known besides: label, suggestion, votes, similar items, notes.
function factNodes(item) {
  const { source, annotator } = item.given_by ?? {}, by = [source === "human" ? "" : source, annotator && `by ${annotator}`].filter(Boolean).join(" ")
  const vote = one => make("li", { class: "mlw-pair" }, make("span", {}, one.annotator), make("span", {}, listed(one.labels)))
  const near = one => make("li", {}, make("p", { class: "mlw-near", dir: "auto" }, one.text),
    make("p", { class: "mlw-pair mlw-by" }, make("span", {}, `${percent(one.similarity)} similar`), make("span", {}, listed(one.labels))))
  return [
    block("Given label", make("p", { class: "mlw-label" }, listed(item.given) || "none yet"), make("p", { class: "mlw-by" }, by)),
    block("Suggested", make("p", { class: "mlw-label" }, listed(item.suggested) || "nothing"),
      item.suggested && item.probability !== null ? bar(item.probability) : null),
    item.notes.length ? make("div", {}, ...item.notes.map(note => make("p", { class: "mlw-note", dir: "auto" }, note.message))) : null,
    item.votes.length ? block("Votes", make("ul", {}, ...item.votes.map(vote))) : null,
    item.comments.length ? block("Comments", make("ul", {}, ...item.comments.map(one => make("li", { dir: "auto" }, `${one.annotator}: ${one.text}`)))) : null,
    item.similar.length ? block("Similar items", make("ul", {}, ...item.similar.map(near))) : null,
    block("Why it is here", make("p", {}, item.strategy || "in the queue"), make("p", { class: "mlw-by" }, `item ${item.item}`)),
  ].filter(Boolean)
}
