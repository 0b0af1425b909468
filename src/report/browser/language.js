// @ts-check
// uPlot formats numbers in the language of the browser when it is loaded. Without a locale (LC_ALL=C, as in containers)
// Chromium calls it `en-US@posix`, which is none.
try {
  Intl.NumberFormat.supportedLocalesOf(navigator.language)
} catch {
  Object.defineProperty(navigator, 'language', { value: 'en-US' })
}
