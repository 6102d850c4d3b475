// Times in the reader's own zone; and what may still change is asked for again while somebody looks at it.
const DAY = {month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit"};

function local(root) {
  for (const time of root.querySelectorAll("time")) {
    time.title = time.textContent;
    time.textContent = new Date(time.dateTime).toLocaleString(undefined, DAY);
  }
}

function busy(region) {
  const inside = region.contains(document.activeElement) && document.activeElement.matches("button, input, select");
  const selection = getSelection();
  return inside || (!selection.isCollapsed && region.contains(selection.anchorNode));
}

function exchange(old, fresh) {
  const log = old.querySelector(".log");
  const place = log && {top: log.scrollTop, end: log.scrollTop + log.clientHeight >= log.scrollHeight - 8};
  old.replaceWith(fresh);
  local(fresh);
  const now = fresh.querySelector(".log");
  if (now && place) now.scrollTop = place.end ? now.scrollHeight : place.top;
}

async function renew() {
  const region = document.getElementById("live");
  if (document.visibilityState === "visible" && !busy(region)) {
    try {
      const answer = await fetch(location.href, {headers: {"X-Requested-With": "live"}});
      if (answer.redirected) return location.reload();
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (answer.ok && fresh.getElementById("live")) {
        document.title = fresh.title;
        exchange(region, fresh.getElementById("live"));
      }
    } catch {} // the server is away: asked again
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
