'use strict';

// The site as it was: Koa with koa-generic-session and koa-pg-session. It
// prints its port, and ends with its input.

const Koa = require('koa');
const session = require('koa-generic-session');
const openStore = require('../../tests/koa/koa2/store');

const { connection, table, keys } = JSON.parse(process.env.SITE);

const page = (trail) => `<!doctype html>
<title>The old page</title>
<h1>The old page, by Koa</h1>
<p>This session was at: ${trail.join(', ')}</p>
<p><a href="/">the old page</a> <a href="/new">the new page</a></p>
<form method="post" action="/logout"><button>Sign out here</button></form>
`;

async function site(ctx) {
  if (ctx.path === '/') {
    ctx.session.trail = [...(ctx.session.trail || []), 'Koa'];
    ctx.body = page(ctx.session.trail);
  } else if (ctx.path === '/logout' && ctx.method === 'POST') {
    ctx.session = null;
    ctx.redirect('/');
    ctx.status = 303;
  }
}

async function main() {
  const app = new Koa();
  app.keys = keys;
  app.use(session({ store: await openStore(connection, { table }) }));
  app.use(site);
  const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
  process.stdin.resume().on('close', () => process.exit());
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
