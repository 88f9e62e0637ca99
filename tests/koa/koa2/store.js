'use strict';

// koa-pg-session for a koa-generic-session that awaits promises: the store has
// generators, and the pg that it brings does not speak to a Node of today. So
// a pool of a newer pg does its queries, and an adapter its generators.

const co = require('co');
const PgStore = require('koa-pg-session');
const { Pool } = require('pg');

function queries(connection) {
  const pool = new Pool(connection);
  // Without a listener the first restart of Postgres ends the process.
  pool.on('error', () => {});
  return async (sql, parameters) => {
    const list = parameters === undefined || Array.isArray(parameters) ? parameters : [parameters];
    return (await pool.query(sql, list)).rows;
  };
}

/** A store that is set up, for `koa-generic-session`. */
async function openStore(connection, options) {
  const store = new PgStore(queries(connection), options);
  await store.setup();
  return {
    get: (sid) => co(store.get(sid)),
    set: (sid, value, ttl) => co(store.set(sid, value, ttl)),
    destroy: (sid) => co(store.destroy(sid)),
    on: store.on.bind(store),
  };
}

module.exports = openStore;
