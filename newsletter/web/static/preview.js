"use strict";

// Two jobs: reload when a file was saved, keeping the place, and let each frame be as tall as its mail.

const PLACE = "newsletter-preview-place";
const frames = [...document.querySelectorAll("iframe")];

function fit(frame) {
  const mail = frame.contentDocument?.documentElement;
  if (mail) frame.style.height = `${Math.ceil(mail.getBoundingClientRect().height)}px`;
}

function fitNowAndLater(frame) {
  fit(frame);
  const mail = frame.contentDocument?.documentElement;
  if (mail) new ResizeObserver(() => fit(frame)).observe(mail);
}

window.addEventListener("load", () => {
  frames.forEach(fitNowAndLater);
  const place = sessionStorage.getItem(PLACE);
  sessionStorage.removeItem(PLACE);
  if (place) window.scrollTo(0, Number(place));
});

const live = document.getElementById("live");
const saves = new EventSource("/events");

function tell(state) {
  live.dataset.state = state;
  live.textContent = state;
}

saves.onopen = () => tell("Live");
saves.onmessage = (event) => {
  if (event.data === document.body.dataset.version) return;
  sessionStorage.setItem(PLACE, String(window.scrollY));
  location.reload();
};
saves.onerror = () => tell("Stopped");
