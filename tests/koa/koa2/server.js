'use strict';

// Koa 2. Its koa-generic-session awaits promises, but the store has
// generators, and a pg that this Node can speak to makes the connections; so
// an adapter does for the store what the site of today has to do for it.

const co = require('co');
const Koa = require('koa');
const Keygrip = require('keygrip');
const session = require('koa-generic-session');
const PgStore = require('koa-pg-session');
const { Pool } = require('pg');
const host = require('../host');
const page = require('../page');

function queries(connection) {
  const pool = new Pool(connection);
  pool.on('error', () => {});
  return async (sql, parameters) => {
    const list = parameters === undefined || Array.isArray(parameters) ? parameters : [parameters];
    return (await pool.query(sql, list)).rows;
  };
}

function adapted(store) {
  return {
    get: (sid) => co(store.get(sid)),
    set: (sid, value, ttl) => co(store.set(sid, value, ttl)),
    destroy: (sid) => co(store.destroy(sid)),
    on: store.on.bind(store),
  };
}

async function open(options) {
  const store = new PgStore(queries(options.connection), options.store);
  await store.setup();

  const app = new Koa();
  app.keys = options.algorithm ? new Keygrip(options.keys, options.algorithm) : options.keys;
  app.proxy = true;
  app.silent = true;
  app.use(session(Object.assign({ store: adapted(store) }, options.session)));
  app.use((ctx) => co(page(ctx)));
  return host.listen(app);
}

host.serve(open);
