// The theme: as the reader's system says, until the button says otherwise; remembered where the browser allows it.
const root = document.documentElement
const remembered = key => { try { return localStorage.getItem(key) } catch { return null } }
const isDark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark"
function setTheme(name) {
  root.dataset.theme = name
  try { localStorage.setItem("mlworkbench-theme", name) } catch { /* a locked-down browser */ }
}
if (["light", "dark"].includes(remembered("mlworkbench-theme"))) root.dataset.theme = remembered("mlworkbench-theme")
addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme")
  const label = () => { button.textContent = isDark() ? "Light" : "Dark" }
  button.hidden = false
  button.addEventListener("click", () => { setTheme(isDark() ? "light" : "dark"); label(); dispatchEvent(new Event("theme")) })
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { label(); dispatchEvent(new Event("theme")) })
  label()
})
