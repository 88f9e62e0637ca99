'use strict';

// The one page of every site: the body of the request says, step by step, what
// it does to `req.session`, and the response is what the session then is.

const { bodyOf, waitAt } = require('../node/host');

/** The promise of a function that takes a callback. */
function done(call) {
  return new Promise((resolve, reject) => {
    call((error) => (error ? reject(error) : resolve()));
  });
}

const steps = {
  set(req, key, value) { req.session[key] = value; },
  date(req, key, text) { req.session[key] = new Date(text); },
  remove(req, key) { delete req.session[key]; },
  increment(req, key) { req.session[key] = (req.session[key] || 0) + 1; },
  unset(req) { req.session = null; },
  cookie(req, changes) { Object.assign(req.session.cookie, changes); },
  until(req, date) { req.session.cookie.expires = new Date(date); },
  destroy: (req) => done((callback) => req.session.destroy(callback)),
  regenerate: (req) => done((callback) => req.session.regenerate(callback)),
  reload: (req) => done((callback) => req.session.reload(callback)),
  save: (req) => done((callback) => req.session.save(callback)),
  login: (req, id) => done((callback) => req.login({ id }, callback)),
  logout: (req) => done((callback) => req.logout(callback)),
  wait: (req, gate) => waitAt(gate),
  status(req, status) { req.res.status(status); },
};

async function respond(req, res) {
  for (const [name, ...given] of (await bodyOf(req)) || []) {
    await steps[name](req, ...given);
  }
  if (req.user) res.set('X-User', String(req.user.id));
  res.type('json');
  res.send(req.session ? JSON.stringify(req.session) : '"absent"');
}

module.exports = (req, res, next) => { respond(req, res).catch(next); };
