// nodemailer, pooled. Twice as many sends are under way as there are connections, so that none of them waits for work.
"use strict";
const fs = require("fs");
const nodemailer = require("nodemailer");

const told = JSON.parse(process.argv[2]);
const email = JSON.parse(fs.readFileSync(told.email, "utf8"));
const people = fs.readFileSync(told.people, "utf8").split("\n").slice(0, told.messages).map((line) => JSON.parse(line));
const attachments = email.pictures.map((one) => ({
  filename: one.name, contentType: one.type, cid: one.cid, content: fs.readFileSync(one.file),
}));
const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" };
const escape = (text) => text.replace(/[&<>"']/g, (char) => ESCAPES[char]);
const fill = (text, person, clean) =>
  ["name", "unsubscribe_url", "preferences_url"].reduce(
    (done, name) => done.split(`@@${name}@@`).join(clean(person[name])), text);

const settings = {
  pool: true, host: "127.0.0.1", port: told.port, maxConnections: told.connections,
  secure: Boolean(told.ca), ignoreTLS: !told.ca,
};
if (told.ca) settings.tls = { ca: fs.readFileSync(told.ca) };
if (told.kept) settings.maxMessages = Infinity;
if (told.dkim) {
  settings.dkim = {
    domainName: told.dkim.domain, keySelector: told.dkim.selector,
    privateKey: fs.readFileSync(told.dkim.key, "utf8"),
  };
}

const message = (person) => ({
  from: email.from, to: person.address, replyTo: email.headers["Reply-To"], subject: email.subject,
  date: email.headers.Date, messageId: person.message_id,
  headers: { ...email.own_headers, "List-Unsubscribe": `<${person.unsubscribe_url}>` },
  text: fill(email.text, person, (value) => value), html: fill(email.html, person, escape), attachments,
});

async function main() {
  const began = process.hrtime.bigint(), cpu = process.cpuUsage();
  const transport = nodemailer.createTransport(settings);
  let next = 0;
  const work = async () => {
    while (next < people.length) await transport.sendMail(message(people[next++]));
  };
  await Promise.all(Array.from({ length: 2 * told.connections }, work));
  const used = process.cpuUsage(cpu), wall = Number(process.hrtime.bigint() - began) / 1e9;
  const line = /VmHWM:\s+(\d+)/.exec(fs.readFileSync("/proc/self/status", "utf8"));
  console.log(JSON.stringify({ wall, cpu: (used.user + used.system) / 1e6, memory: Number(line[1]) * 1024 }));
  transport.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
