// The colours that were chosen, set before anything is drawn. Not a module: those run later.

try {
  const chosen = localStorage.getItem("mmsearch-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing: the system's colours then.
}
