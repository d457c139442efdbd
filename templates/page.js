// Fetches the page again every 15 seconds and puts its numbers in place. The page works without it.
'use strict';
(() => {
  const button = document.createElement('button');
  button.id = 'pause';
  button.type = 'button';
  let paused = false;
  const label = () => { button.textContent = paused ? 'Refresh again' : 'Pause refresh'; };
  button.addEventListener('click', () => { paused = !paused; label(); });
  label();
  const pill = document.querySelector('.pill');
  const tools = document.createElement('div');
  tools.className = 'tools';
  pill.replaceWith(tools);
  tools.append(button, pill);

  async function refresh() {
    const main = document.getElementById('main');
    if (paused || document.hidden || main.contains(document.activeElement)) return;
    const answer = await fetch(location.href, { cache: 'no-store', signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const open = [...main.querySelectorAll('details')].map((it) => it.open);
    const form = main.querySelector('.operator');
    const next = page.getElementById('main');
    next.querySelectorAll('details').forEach((it, at) => { it.open = open[at]; });
    // What was typed stays.
    if (form) next.querySelector('.operator')?.replaceWith(form);
    main.replaceWith(next);
    for (const what of ['.pill', 'header p', 'footer']) {
      document.querySelector(what).replaceWith(page.querySelector(what));
    }
    document.title = page.title;
  }

  const lost = () => {
    const pill = document.querySelector('.pill');
    pill.className = 'pill bad';
    pill.lastChild.textContent = 'The tracker does not answer';
  };
  setInterval(() => refresh().catch(lost), 15000);
})();
