'use strict';

// The one page of every site: the body of the request says, step by step, what
// it does to `ctx.session`, and the response is what the session then is.

const { bodyOf, waitAt } = require('../node/host');

const steps = {
  *set(ctx, key, value) { ctx.session[key] = value; },
  *date(ctx, key, text) { ctx.session[key] = new Date(text); },
  *remove(ctx, key) { delete ctx.session[key]; },
  *increment(ctx, key) { ctx.session[key] = (ctx.session[key] || 0) + 1; },
  *replace(ctx, session) { ctx.session = session; },
  *destroy(ctx) { ctx.session = null; },
  *regenerate(ctx) { yield ctx.regenerateSession(); },
  *save(ctx, whether) { ctx.sessionSave = whether; },
  *id(ctx, id) { ctx.sessionId = id; },
  *wait(ctx, gate) { yield waitAt(gate); },
  *fail(ctx, status) { ctx.throw(status, 'as the test asked'); },
  *status(ctx, status) { ctx.status = status; },
  *cookie(ctx, changes) {
    Object.assign(ctx.session.cookie, changes);
    if (changes.expires) ctx.session.cookie.expires = new Date(changes.expires);
  },
};

function *page(ctx) {
  for (const [name, ...given] of (yield bodyOf(ctx.req)) || []) {
    yield* steps[name](ctx, ...given);
  }
  ctx.type = 'json';
  ctx.body = ctx.session === undefined ? '"absent"' : JSON.stringify(ctx.session);
}

module.exports = page;
