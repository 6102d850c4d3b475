// Times in the reader's own zone; and what may still change is asked for again while somebody looks at it.
const DAY = {month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short"};

function local(root) {
  for (const time of root.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    const year = at.getFullYear() === new Date().getFullYear() ? {} : {year: "numeric"};
    time.title = time.textContent;
    time.textContent = at.toLocaleString(undefined, {...DAY, ...year});
  }
}

function busy(region) {
  const inside = region.contains(document.activeElement) && document.activeElement.matches("button, input, select");
  const selection = getSelection();
  return inside || (!selection.isCollapsed && region.contains(selection.anchorNode));
}

// What somebody can stand on or has opened, by a name that it has in the next version of the page too.
function places(region) {
  const found = new Map();
  const counts = new Map();
  for (const node of region.querySelectorAll("a[href], summary, pre[tabindex]")) {
    const name = `${node.tagName} ${node.getAttribute("href") ?? node.textContent.slice(0, 40)}`;
    const count = counts.get(name) ?? 0;
    counts.set(name, count + 1);
    found.set(`${name} ${count}`, node);
  }
  return found;
}

function exchange(old, fresh) {
  const log = old.querySelector(".log");
  const place = log && {top: log.scrollTop, end: log.scrollTop + log.clientHeight >= log.scrollHeight - 8};
  const focused = document.activeElement;
  const before = places(old);
  old.replaceWith(fresh);
  local(fresh);
  const after = places(fresh);
  for (const [name, node] of before) {
    const now = after.get(name);
    if (now?.matches("summary")) now.parentElement.open = node.parentElement.open;
    if (now && node === focused) now.focus({preventScroll: true});
  }
  const now = fresh.querySelector(".log");
  if (now && place) now.scrollTop = place.end ? now.scrollHeight : place.top;
}

let heard = new Date();

// What stands in the way of the next version of the page; nothing when it has come.
function stands(why) {
  const stale = document.getElementById("stale");
  const text = why && `${why} This is how it was at ${heard.toLocaleTimeString()}.`;
  if (!why) heard = new Date();
  if (stale.textContent !== text) stale.textContent = text; // an alert, read aloud whenever it is set
  stale.hidden = !why;
}

const REFUSED = {403: "You may not see this any more.", 404: "This is not there any more.", 429: "Too much was asked at once."};
const SILENT = "The server does not answer.";

async function renew() {
  const region = document.getElementById("live");
  if (document.visibilityState === "visible" && !busy(region)) {
    try {
      const answer = await fetch(location.href, {headers: {"X-Requested-With": "live"}});
      if (answer.redirected) return location.reload();
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = answer.ok && page.getElementById("live");
      if (fresh) {
        if (document.title !== page.title) document.getElementById("told").textContent = page.title; // read aloud
        document.title = page.title;
        exchange(region, fresh);
      }
      stands(fresh ? "" : REFUSED[answer.status] ?? SILENT);
    } catch {
      stands(SILENT); // asked again
    }
  }
  wait();
}

function wait() {
  const every = document.getElementById("live")?.dataset.live;
  if (every) setTimeout(renew, every * 1000);
}

local(document);
const log = document.querySelector(".log");
if (log) log.scrollTop = log.scrollHeight;
wait();
