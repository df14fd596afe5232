// Sends chosen files ahead of the letter, a stretch at a time, shows how far they are, and goes on by
// itself where a connection broke. Without it the form brings its files along.
"use strict";
(() => {
  const input = document.getElementById("files");
  const place = document.getElementById("uploads");
  const form = input.form;
  const list = place.querySelector("ul");
  const status = place.querySelector("[role=status]");
  const fields = document.createElement("div");
  // Before the files: what is typed comes first.
  form.prepend(fields);
  const STRETCH = 16 * 1024 * 1024;
  const END = 1024 * 1024;
  const ALIVE = 5 * 60 * 1000;
  const PAUSES = [1, 2, 4, 8, 15, 30];
  // Of this page: another tab may be at work on others.
  const ours = new Set();
  let open = 0;
  let held = false;
  let queue = Promise.resolve();

  const words = (key, name) => place.dataset[key].replace("{name}", () => name);
  const pause = (tries) =>
    new Promise((go) => setTimeout(go, 1000 * PAUSES[Math.min(tries, PAUSES.length - 1)]));
  class Refused extends Error {}

  const ask = async (path, options) => {
    const answer = await fetch(path, { credentials: "same-origin", redirect: "manual", ...options });
    // Who is not signed in is sent elsewhere.
    if (answer.type === "opaqueredirect" || answer.status === 401) {
      throw new Refused(place.dataset.ended);
    }
    const text = await answer.text();
    let told = null;
    try { told = JSON.parse(text); } catch { /* an answer without words */ }
    if (answer.status >= 500) throw new Error("later");
    return { status: answer.status, told };
  };

  const leave = (id) => ask(`/uploads/${id}/remove`, { method: "POST", body: new URLSearchParams() });

  // By what a file is known again besides name and size: two of a scanner's may share those. Where
  // there is no digest (without https), none is.
  const markOf = async (file) => {
    if (!window.crypto.subtle) return "";
    const ends = [file.slice(0, END), file.slice(-END), String(file.lastModified)];
    const digest = await crypto.subtle.digest("SHA-256", await new Blob(ends).arrayBuffer());
    return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  };

  // What came of it before the page was left, or a new place.
  const begin = async (file) => {
    const mark = await markOf(file);
    const before = mark ? await ask("/uploads") : { told: [] };
    const half = (before.told || []).find((one) => one.mark === mark && one.name === file.name &&
      one.size === file.size && one.offset < one.size && !ours.has(one.id));
    if (half) return half;
    const body = new URLSearchParams({ name: file.name, type: file.type, size: file.size, mark });
    const made = await ask("/uploads", { method: "POST", body });
    if (made.status !== 201) throw new Refused((made.told && made.told.problem) || "");
    return made.told;
  };

  const send = (item, from) => new Promise((go, fail) => {
    const request = new XMLHttpRequest();
    item.request = request;
    request.open("POST", `/uploads/${item.id}?offset=${from}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => { item.bar.value = from + event.loaded; };
    request.onload = () => go(request.status);
    request.onerror = request.onabort = request.ontimeout = () => fail(new Error("connection"));
    request.send(item.file.slice(from, from + STRETCH));
  });

  const step = async (item) => {
    const now = await ask(`/uploads/${item.id}`);
    if (now.status === 404) {
      item.id = "";
      throw new Error("gone");
    }
    if (now.status !== 200) throw new Error("busy");
    item.bar.value = now.told.offset;
    if (now.told.offset === item.file.size) return true;
    const code = await send(item, now.told.offset);
    if (code === 413) throw new Refused("");
    if (code !== 200) throw new Error("again");
    return false;
  };

  const carry = async (item) => {
    let tries = 0;
    for (;;) {
      try {
        if (item.gone) return;
        if (!item.id) {
          const place = await begin(item.file);
          item.id = place.id;
          ours.add(place.id);
        }
        if (await step(item)) return;
        tries = 0;
        item.say("begun");
      } catch (trouble) {
        if (item.gone) return;
        if (trouble instanceof Refused) throw trouble;
        item.say("waits");
        await pause(tries);
        tries += 1;
      }
    }
  };

  const show = (file) => {
    const line = document.createElement("li");
    const text = document.createElement("span");
    const bar = document.createElement("progress");
    const button = document.createElement("button");
    const item = { file, bar, id: "", gone: false, request: null };
    item.say = (key) => { text.textContent = words(key, file.name); };
    item.fail = (problem) => {
      line.classList.add("wrong");
      item.say("failed");
      if (problem) text.textContent += `: ${problem}`;
      status.textContent = text.textContent;
    };
    item.end = () => {
      const field = document.createElement("input");
      field.type = "hidden";
      field.name = "upload";
      field.value = item.id;
      fields.append(field);
      item.field = field;
      item.say("whole");
      status.textContent = text.textContent;
    };
    bar.max = Math.max(file.size, 1);
    bar.value = 0;
    bar.setAttribute("aria-label", file.name);
    button.type = "button";
    button.className = "quiet";
    button.textContent = words("remove", file.name);
    button.addEventListener("click", () => {
      item.gone = true;
      if (item.request) item.request.abort();
      if (item.field) item.field.remove();
      // Not waited for: what is not removed now goes by itself.
      if (item.id) leave(item.id).catch(() => {});
      line.remove();
      input.focus();
    });
    item.say("begun");
    line.append(text, bar, button);
    list.append(line);
    return item;
  };

  const take = (file) => {
    const item = show(file);
    open += 1;
    queue = queue.then(async () => {
      try {
        await carry(item);
        if (!item.gone) item.end();
      } catch (refused) {
        held = false;
        item.fail(refused.message);
      }
      open -= 1;
      if (open === 0 && held) form.submit();
    });
  };

  input.addEventListener("change", () => {
    place.hidden = false;
    [...input.files].forEach(take);
    input.value = "";
  });
  // Files that were here before: off the page and off the portal, and what was typed stays.
  document.querySelectorAll("[data-upload]").forEach((button) => {
    button.addEventListener("click", async (event) => {
      event.preventDefault();
      try {
        await leave(button.dataset.upload);
        button.parentElement.remove();
        input.focus();
      } catch (trouble) {
        place.hidden = false;
        status.textContent = trouble.message;
      }
    });
  });
  // Who writes is there: a session does not end over a long letter.
  let typed = 0;
  form.addEventListener("input", () => { typed = Date.now(); });
  setInterval(() => {
    if (Date.now() - typed < 2 * ALIVE) ask("/uploads").catch(() => {});
  }, ALIVE);
  form.addEventListener("submit", (event) => {
    if (open === 0) return;
    event.preventDefault();
    held = true;
    status.textContent = place.dataset.hold;
  });
})();
