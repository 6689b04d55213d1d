// Search and filters; the table stands without them.
const filter = document.getElementById("filter")
if (filter) {
  const rows = [...document.querySelectorAll(".runs tbody tr")]
  const [search, status, severity, shown] = ["search", "status", "severity", "shown"].map(id => document.getElementById(id))
  const update = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean)
    for (const { hidden, row } of rows.map(row => ({ row, hidden: !(
      words.every(word => row.dataset.search.includes(word)) &&
      (!status.value || row.dataset.status === status.value) &&
      (!severity.value || row.dataset.severities.split(" ").includes(severity.value))) }))) row.hidden = hidden
    const count = rows.filter(row => !row.hidden).length
    shown.textContent = count === rows.length ? `${count} run${count === 1 ? "" : "s"}` : `${count} of ${rows.length} runs`
  }
  filter.hidden = false
  filter.addEventListener("input", update)
  filter.addEventListener("submit", event => event.preventDefault())
  update()
}
