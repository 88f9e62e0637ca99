'use strict';

// One process for all sites of a generation. It prints the port on which it
// takes orders, and ends with its input, so it never outlives the tests.
//
//   {"open": {…}}     opens a site with these options: {"port": …}
//   {"arrived": "x"}  returns when a request waits at the gate x
//   {"release": "x"}  lets that request go on

const http = require('http');

const gates = new Map();

function gate(name) {
  if (!gates.has(name)) {
    const made = {};
    made.arrived = new Promise((resolve) => { made.arrive = resolve; });
    made.released = new Promise((resolve) => { made.release = resolve; });
    gates.set(name, made);
  }
  return gates.get(name);
}

/** A request stops here until the test lets it go on. */
function waitAt(name) {
  gate(name).arrive();
  return gate(name).released;
}

async function carryOut(order, open) {
  if (order.open) return { port: await open(order.open) };
  if (order.arrived) await gate(order.arrived).arrived;
  if (order.release) gate(order.release).release();
  return {};
}

/** The JSON of a request's body, if it has one. */
function bodyOf(request) {
  return new Promise((resolve, reject) => {
    let body = '';
    request.setEncoding('utf8');
    request.on('data', (chunk) => { body += chunk; });
    request.on('end', () => resolve(body === '' ? undefined : JSON.parse(body)));
    request.on('error', reject);
  });
}

/** Listens on a free port of the loopback and returns it. */
function listen(app) {
  return new Promise((resolve, reject) => {
    const server = app.listen(0, '127.0.0.1', () => resolve(server.address().port));
    server.on('error', reject);
  });
}

/** `open` makes a site of options and returns its port. */
async function serve(open) {
  const orders = http.createServer((request, response) => {
    bodyOf(request)
      .then((order) => carryOut(order, open))
      .catch((error) => ({ error: String((error && error.stack) || error) }))
      .then((reply) => response.end(JSON.stringify(reply)));
  });
  process.stdin.resume().on('close', () => process.exit());
  console.log(await listen(orders));
}

// When a test is over its database is dropped under its site, whose pool or
// cleanup then fails without a listener. That must not end the other sites.
process.on('uncaughtException', (error) => console.error(error));
process.on('unhandledRejection', (error) => console.error(error));

module.exports = { bodyOf, listen, serve, waitAt };
