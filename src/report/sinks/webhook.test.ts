import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import type { TrainEvent } from '../../train/events.ts'
import { LowrankError } from '../../util/errors.ts'
import { errorEvent } from './sink.ts'
import { Webhook, type Patience } from './webhook.ts'

type Body = {
  readonly run: Record<string, string>
  readonly event: Record<string, unknown> & { readonly type: string }
}
type Answer = (body: Body, request: IncomingMessage, response: ServerResponse) => void

const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

/** A server on this machine; `bodies` are what it got, in order. */
async function receiver(answer: Answer): Promise<{ webhookUrl: string; bodies: Body[] }> {
  const bodies: Body[] = []
  const server = createServer((request, response) => {
    let text = ''
    request.setEncoding('utf8').on('data', (part: string) => (text += part))
    request.on('end', () => {
      const body = JSON.parse(text) as Body
      bodies.push(body)
      answer(body, request, response)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  closing.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return { webhookUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`, bodies }
}

const run = { outputDir: 'runs/a', model: 'm', method: 'lora' } as const
const hasty: Patience = { timeout: 200, body: 100, pauses: [10, 20], flush: 1000 }
const ok: Answer = (_, __, response) => response.end('{}')
const log = (step: number): TrainEvent => ({ type: 'log', step, epoch: 0, loss: step, learningRate: 0, gradNorm: 0 })

test('each event is posted once, in order, with the run it is of', async () => {
  // Answers take their time, so that events queue up.
  const { webhookUrl, bodies } = await receiver((_, request, response) => {
    expect(request.method).toBe('POST')
    expect(request.headers['content-type']).toBe('application/json')
    setTimeout(() => response.end(), 5)
  })
  const webhook = new Webhook({ ...run, webhookUrl })
  const steps = Array.from({ length: 20 }, (_, index) => index + 1)
  for (const step of steps) webhook.event(log(step))
  webhook.event({ type: 'save', step: 20, path: 'runs/a' })
  await webhook.flush()
  expect(bodies.map(({ event }) => event['step'])).toEqual([...steps, 20])
  expect(bodies[0]?.run).toEqual({ name: 'a', outputDir: 'runs/a', model: 'm', method: 'lora' })
  expect(bodies[0]?.event).toEqual(log(1))
  expect(webhook.warnings()).toEqual([])
})

test('steps, samples and status lines are not posted; the error that ends a run is', async () => {
  const { webhookUrl, bodies } = await receiver(ok)
  const webhook = new Webhook({ ...run, webhookUrl })
  webhook.event({ type: 'status', message: 'loading' })
  webhook.event({ type: 'sample', when: 'before', prompt: 'p', completion: 'c', expected: 'e' })
  webhook.event({ type: 'warning', message: 'w' })
  webhook.event(errorEvent(new LowrankError('cancelled', 'cancelled after step 2')))
  await webhook.flush()
  expect(bodies.map(({ event }) => event)).toEqual([
    { type: 'warning', message: 'w' },
    { type: 'error', code: 'cancelled', message: 'cancelled after step 2' },
  ])
})

test('a server that fails for a while gets the event again', async () => {
  let calls = 0
  const { webhookUrl, bodies } = await receiver((_, __, response) => {
    response.statusCode = ++calls < 3 ? 500 : 200
    response.end()
  })
  const webhook = new Webhook({ ...run, webhookUrl }, hasty)
  for (const step of [1, 2]) webhook.event(log(step))
  await webhook.flush()
  expect(bodies.map(({ event }) => event['step'])).toEqual([1, 1, 1, 2])
  expect(webhook.warnings()).toEqual([])
})

test('a server that always answers 500: three tries, then one an event; one warning, and how many were missed', async () => {
  const { webhookUrl, bodies } = await receiver((_, __, response) => {
    response.statusCode = 500
    response.end()
  })
  const webhook = new Webhook({ ...run, webhookUrl }, hasty)
  for (const step of [1, 2, 3]) webhook.event(log(step))
  await webhook.flush()
  expect(bodies.map(({ event }) => event['step'])).toEqual([1, 1, 1, 2, 3])
  expect(webhook.warnings()).toEqual([
    'the webhook does not accept the events of this run: it answers 500 Internal Server Error',
    'the webhook missed 3 events of this run',
  ])
})

test('what is refused (4xx) is not tried again', async () => {
  const { webhookUrl, bodies } = await receiver((_, __, response) => {
    response.statusCode = 403
    response.end()
  })
  const webhook = new Webhook({ ...run, webhookUrl }, hasty)
  webhook.event(log(1))
  await webhook.flush()
  expect(bodies).toHaveLength(1)
  expect(webhook.warnings()[0]).toContain('403 Forbidden')
})

test('a server that never answers holds up neither the run nor its end', async () => {
  const { webhookUrl, bodies } = await receiver(() => undefined)
  const webhook = new Webhook({ ...run, webhookUrl }, { timeout: 150, body: 100, pauses: [50], flush: 400 })
  const begun = performance.now()
  for (let step = 1; step <= 2000; step++) webhook.event(log(step))
  expect(performance.now() - begun).toBeLessThan(200)
  await sleep(300)
  await webhook.flush()
  expect(performance.now() - begun).toBeLessThan(2000)
  expect(bodies.length).toBeLessThanOrEqual(8)
  expect(webhook.warnings()).toEqual([
    'the webhook does not accept the events of this run: no answer within 0.15 s',
    'the webhook missed 2000 events of this run',
  ])
})

test('with too much waiting, log lines go before anything else', async () => {
  const held: (() => void)[] = []
  const { webhookUrl, bodies } = await receiver((_, __, response) => {
    if (held.length === 0) held.push(() => response.end())
    else response.end()
  })
  const webhook = new Webhook({ ...run, webhookUrl }, { ...hasty, timeout: 5000, flush: 5000 })
  webhook.event({ type: 'warning', message: 'first' })
  webhook.event({ type: 'save', step: 1, path: 'p' })
  for (let step = 1; step <= 600; step++) webhook.event(log(step))
  while (held.length === 0) await sleep(5)
  held[0]!()
  await webhook.flush()
  expect(bodies[1]?.event).toEqual({ type: 'save', step: 1, path: 'p' })
  expect(bodies.at(-1)?.event).toEqual(log(600))
  expect(bodies).toHaveLength(501)
  expect(webhook.warnings()).toEqual(['the webhook missed 101 events of this run'])
})

test('nobody there: reported in the words of the system', async () => {
  const webhook = new Webhook({ ...run, webhookUrl: 'http://127.0.0.1:1/' }, hasty)
  webhook.event(log(1))
  await webhook.flush()
  expect(webhook.warnings()[0]).toMatch(/ECONNREFUSED|bad port/)
})

test.each([
  ['me:s%40crt', 'me:s@crt'],
  ['me:100%', 'me:100%'],
  ['a%zz:%ff%41', 'a%zz:%ff%41'],
  ['%E2%82%AC:%', '\u20ac:%'],
  ['me:', 'me:'],
])('a name and password in the address go as a header: %s', async (written, meant) => {
  const seen: (string | undefined)[] = []
  const { webhookUrl } = await receiver((_, request, response) => {
    seen.push(request.headers.authorization)
    response.end()
  })
  const webhook = new Webhook({ ...run, webhookUrl: webhookUrl.replace('//', `//${written}@`) }, hasty)
  webhook.event(log(1))
  await webhook.flush()
  expect(seen).toEqual([`Basic ${Buffer.from(meant).toString('base64')}`])
})

test.each([301, 302, 303, 307, 308])('a redirect (%i) is reported, not followed', async (status) => {
  const other = await receiver(ok)
  const { webhookUrl, bodies } = await receiver((_, __, response) => {
    response.writeHead(status, { location: `${other.webhookUrl}/secret` }).end()
  })
  const webhook = new Webhook({ ...run, webhookUrl: webhookUrl.replace('//', '//me:secret@') }, hasty)
  for (const step of [1, 2]) webhook.event(log(step))
  await webhook.flush()
  expect(bodies).toHaveLength(2)
  expect(other.bodies).toEqual([])
  const [problem, missed] = webhook.warnings()
  expect(problem).toContain(`it answers ${status} `)
  expect(problem).toContain(
    `a redirect to ${new URL(other.webhookUrl).origin}, which is not followed: give that address`,
  )
  expect(problem).not.toContain('secret')
  expect(missed).toBe('the webhook missed 2 events of this run')
})

test('an answer without end is left after 64 KiB, and counts as what its head says', async () => {
  let sent = 0
  const { webhookUrl, bodies } = await receiver((_, __, response) => {
    const more = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(64 * 1024))) sent += 64 * 1024
    }
    response.on('drain', more)
    more()
  })
  const webhook = new Webhook({ ...run, webhookUrl }, { ...hasty, timeout: 5000, body: 5000, flush: 8000 })
  const begun = performance.now()
  for (const step of [1, 2, 3]) webhook.event(log(step))
  await webhook.flush()
  expect(performance.now() - begun).toBeLessThan(4000)
  expect(bodies.map(({ event }) => event['step'])).toEqual([1, 2, 3])
  expect(webhook.warnings()).toEqual([])
  // What the machine buffers of three connections.
  expect(sent).toBeLessThan(64 * 2 ** 20)
})

test('an answer that never ends, byte by byte, holds up each event for a while only', async () => {
  const { webhookUrl, bodies } = await receiver((_, __, response) => {
    response.write('x')
    const drip = setInterval(() => response.write('x'), 10)
    response.on('close', () => clearInterval(drip))
  })
  const webhook = new Webhook({ ...run, webhookUrl }, hasty)
  for (const step of [1, 2]) webhook.event(log(step))
  await webhook.flush()
  // Each was taken: it is not posted twice.
  expect(bodies.map(({ event }) => event['step'])).toEqual([1, 2])
  expect(webhook.warnings()).toEqual([])
})
