import { expand, pick, seededRandom, shuffled, type Facts, type Grammar, type Random } from './grammar.ts'
import { drawFacts } from './words.ts'

/** One example of the fine-tuning task, a line of train.jsonl or valid.jsonl. */
export interface Ticket {
  readonly prompt: string
  readonly completion: string
}

/** One thing that customers write about: how they say it (`says`, many ways) and what the shop answers (one way). */
interface Issue {
  readonly category: 'delivery' | 'billing' | 'returns' | 'account' | 'damaged' | 'cancel' | 'stock'
  readonly says: readonly string[]
  readonly reply: string
}

const issues: readonly Issue[] = [
  {
    category: 'delivery',
    says: [
      'My {product} from order {order} has not arrived. {when}',
      'Where is my {product}? I am waiting for order {order} since {day}.',
      'Order {order} is late. The {product} should have been here on {day}.',
      'I still have no {product}. {when} The order is {order}.',
    ],
    reply: 'we are sorry that the {product} is late. We will find order {order} today.',
  },
  {
    category: 'delivery',
    says: [
      'The tracking page says that the {product} was delivered, but I have nothing. The order is {order}.',
      'The courier says order {order} was delivered on {day}, but the {product} never came to me.',
      'Order {order} was delivered to my neighbor, I think. I never saw the {product}.',
    ],
    reply: 'we are sorry that the {product} was lost. We will send order {order} again.',
  },
  {
    category: 'billing',
    says: [
      'You charged me twice for the {product}, {amount} dollars each time. The order is {order}.',
      'I see two payments of {amount} dollars for order {order} on my credit card, but I bought only one {product}.',
      'Why did I pay {amount} dollars twice for one {product}? {when} My order number is {order}.',
    ],
    reply: 'you paid twice for the {product}. We will pay back {amount} dollars.',
  },
  {
    category: 'billing',
    says: [
      'I need an invoice for the {product}. The order is {order}.',
      'There was no invoice with order {order}. {when} I need it for the {product}.',
      'Can you send me the invoice for my {product}? It was order {order}.',
    ],
    reply: 'the invoice for the {product} is attached. It is for order {order}.',
  },
  {
    category: 'returns',
    says: [
      'I would like to return the {product}. It is too small. The order is {order}.',
      'The {product} from order {order} does not fit in my room. Can I send it back?',
      'I do not like the {product} that came on {day}. I want to return order {order}.',
      'How do I send the {product} back? It is too large for me. My order is {order}.',
    ],
    reply: 'you can return the {product} within two weeks. Please write {order} on the box.',
  },
  {
    category: 'returns',
    says: [
      'You sent me a {other}, but I ordered a {product}. My order number is {order}.',
      'In the parcel of order {order} there was a {other}. I wanted a {product}.',
      'I opened the box on {day} and found a {other}. My order {order} was a {product}.',
    ],
    reply: 'please keep the {other}. We will send you the {product}.',
  },
  {
    category: 'account',
    says: [
      'I cannot log in. The page says that my password is wrong. I want to see order {order}.',
      'I forgot my password. How can I look at order {order} for the {product}?',
      'My account is locked since {day}, so I cannot see my {product}. The order is {order}.',
    ],
    reply: 'a link for a new password is on its way. Then you can see order {order}.',
  },
  {
    category: 'account',
    says: [
      'I have moved to {city}. How do I change the address for my {product}? The order is {order}.',
      'My new address is in {city}. Please send the {product} there. It is order {order}.',
      'Please change my address. I live in {city} since {day}. I ordered a {product}.',
    ],
    reply: 'your new address is in {city}. We will send the {product} there.',
  },
  {
    category: 'damaged',
    says: [
      'The {product} arrived broken. The box was open. The order is {order}.',
      'There is a crack in the {product} that came on {day}. It was order {order}.',
      'I opened order {order} and the {product} was in pieces.',
      'The {product} has a scratch. {when} My order number is {order}.',
    ],
    reply: 'we are sorry that the {product} is broken. Please send us a picture.',
  },
  {
    category: 'damaged',
    says: [
      'The {product} stopped working after {count} weeks. I bought it with order {order}.',
      'After {count} weeks my {product} makes a strange noise. The order is {order}.',
      'My {product} worked for {count} weeks, and now it does nothing. It was order {order}.',
    ],
    reply: 'the {product} should last more than {count} weeks. We will repair it.',
  },
  {
    category: 'cancel',
    says: [
      'Please cancel order {order}. I do not need the {product} any more.',
      'I ordered the {product} by mistake. Can I cancel it? The order is {order}.',
      'I found a better {product} in {city}, so I want to cancel order {order}.',
    ],
    reply: 'order {order} is cancelled. You do not pay for the {product}.',
  },
  {
    category: 'stock',
    says: [
      'Do you have the {product} in stock? I need {count} pieces for my office in {city}.',
      'I want to buy {count} pieces of the {product}. Do you have so many?',
      'Is the {product} back in stock? My friend needs {count} pieces.',
    ],
    reply: 'yes, we have {count} pieces of the {product}.',
  },
]

const words: Grammar = {
  hello: ['Hello.', 'Hi.', 'Hi there.', 'Good morning.', 'Good evening.', '', '', ''],
  before: [
    'My name is {name}.',
    'I am a customer from {town}.',
    'I wrote to {agent} on {dayAfter}.',
    '',
    '',
    '',
    '',
    '',
  ],
  after: [
    'It is for {friend}.',
    'It is a present for my sister.',
    'I am not happy.',
    'I wait for your answer.',
    '',
    '',
    '',
    '',
  ],
  when: ['I ordered it on {day}.', 'It is {day} already.', 'I live in {city}.', '', ''],
  bye: ['Please help.', 'Thank you.', 'Thanks.', 'Please answer soon.', 'What can I do?', '', '', ''],
}

/**
 * The task: a support ticket in, a line `category: …` and a line `reply: …` out. The category follows from what is said;
 * the reply repeats the customer's name and facts of the ticket, so it can only be written by having read it.
 * Issues take turns, so that each is equally frequent, and no ticket appears twice.
 */
export function tickets({ seed, count }: { seed: number; count: number }): Ticket[] {
  const random = seededRandom(seed, 'quickstart tickets')
  const seen = new Set<string>()
  const result: Ticket[] = []
  while (result.length < count) {
    const issue = issues[result.length % issues.length]
    if (!issue) break
    const ticket = drawTicket(issue, drawFacts(random), random)
    if (seen.has(ticket.prompt)) continue
    seen.add(ticket.prompt)
    result.push(ticket)
  }
  return shuffled(random, result)
}

function drawTicket(issue: Issue, facts: Facts, random: Random): Ticket {
  const fill = (template: string) => expand(template, words, facts, random)
  const text = fill(`{hello} {before} ${pick(random, issue.says)} {after} {bye}`)
  return {
    prompt: `Ticket from ${fill('{name}')}\n${text.replaceAll(/ +/g, ' ').trim()}\n`,
    completion: `category: ${issue.category}\nreply: ${fill(`Hi {first}, ${issue.reply}`)}`,
  }
}
