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

function answered(yes) {
  const stale = document.getElementById("stale");
  if (yes) heard = new Date();
  else if (stale.hidden) stale.textContent = `The server does not answer. This is how it was at ${heard.toLocaleTimeString()}.`;
  stale.hidden = yes;
}

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
      answered(Boolean(fresh));
    } catch {
      answered(false); // asked again
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
