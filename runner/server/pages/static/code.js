// The code of a one-time link stands behind its `#`, where no server and no log sees it; here it goes into the form.
const field = document.querySelector("input[name=code]");
if (field && location.hash.length > 1) {
  field.value = location.hash.slice(1);
  field.closest("label").hidden = true;
  history.replaceState(null, "", location.pathname);
}
