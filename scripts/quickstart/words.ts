import { pick, shuffled, type Facts, type Random } from './grammar.ts'

const words = (text: string): string[] => text.trim().split(/\s+/)

export const firstNames = words(`
  Ada Adam Agnes Alan Alice Amir Amy Ana Andre Anna Anton Aria Arthur Ben Bella Boris Bruno Carl Carla Carmen Cara Chen
  Chloe Clara Dana Daniel Dario David Dina Diego Dora Edith Elena Eli Ella Emil Emma Erik Esther Eva Fatima Felix Finn
  Fiona Frank Frida George Gina Grace Greta Gus Hana Hannah Harry Helen Henry Hugo Ida Igor Ines Iris Isaac Ivan Ivy Jack
  Jade Jan Jane Jonas Julia June Kai Kate Karl Kim Lara Laura Lea Leo Lena Liam Lily Linda Louis Lucas Lucy Luna Maria
  Mark Marta Mary Max Maya Mei Mia Mila Milan Mina Mira Mona Nadia Nico Nina Noah Nora Olga Oscar Otto Owen Paul Paula Peter
  Petra Pia Priya Rahul Ravi Rita Robert Rosa Ruth Sam Samir Sara Simon Sofia Stella Sven Tara Tom Tina Uma Vera Victor
  Wanda Will Yara Yuki Zoe`)

export const lastNames = words(`
  Adams Baker Bell Berg Black Bond Brook Brown Carter Castro Clark Cole Costa Cruz Dahl Diaz Evans Fischer Ford Fox Garcia
  Gray Green Hall Hansen Hill Hunt Jensen Khan Kim King Klein Lane Lee Lopez Marsh Meyer Mills Moore Novak Ortiz Park
  Patel Perez Price Reed Rossi Ryan Sato Shaw Silva Singh Stone Tanaka Vega Wang Ward Weber West White Wolf Wood Young`)

export const articles = words(`
  alarm backpack basket bike blanket blender bottle bowl brush camera chair clock coat cup curtain desk drill fan fridge
  guitar hammer hat heater helmet jacket jar jug kettle keyboard knife ladder lamp lantern mattress microphone mirror mixer
  monitor mouse mug notebook oven pan pen phone piano pillow plate pot printer radio rug saw scale scarf shelf shirt sofa
  speaker stool stove suitcase sweater table tablet teapot tent toaster torch towel toy tray umbrella vacuum vase wallet watch`)

const looks = words(`
  red blue green white black yellow orange purple pink gray brown silver golden wooden metal glass leather cotton small
  large round square heavy light folding electric classic modern`)

export const cities = words(`
  Ashford Bremen Bristol Cairo Cork Dallas Denver Dover Dublin Florence Geneva Hamburg Helsinki Kyoto Leeds Lima Lisbon
  London Lyon Madrid Malmo Milan Naples Nairobi Oslo Oxford Paris Porto Prague Quito Riga Rome Salem Seoul Seville Sofia
  Tampa Tokyo Turin Utrecht Vienna Warsaw York Zurich`)

export const shops = [
  'Alder Market', 'Bluebird', 'Cedar and Co', 'Corner House', 'Daisy Lane', 'Eastgate', 'Fern Street', 'Good Goods',
  'Harbor Store', 'Little Owl', 'Maple Home', 'North Star', 'Old Mill', 'Pebble', 'Red Barn', 'Sunny Side', 'Willow',
] // prettier-ignore

export const jobs = words(`
  baker builder carpenter chef dentist doctor driver engineer farmer gardener guard lawyer librarian musician nurse painter
  pilot plumber postman sailor singer student tailor teacher waiter writer`)

export const days = words('Monday Tuesday Wednesday Thursday Friday Saturday Sunday')
export const months = words('January February March April May June July August September October November December')
export const counts = words('two three four five six seven eight nine ten')

/** The two amounts differ. */
function amounts(random: Random): [string, string] {
  const low = 10 + Math.floor(random() * 80)
  return [String(low), String(low + 1 + Math.floor(random() * 9))]
}

/** Three elements, no two the same. */
function different(random: Random, list: readonly string[]): [string, string, string] {
  const [a = '', b = '', c = ''] = shuffled(random, list)
  return [a, b, c]
}

/** Two pairs of digits, such as 48-21: GPT-2's pre-tokenizer keeps each pair whole. */
function drawOrderNumber(random: Random): string {
  const pair = () => String(10 + Math.floor(random() * 90))
  return `${pair()}-${pair()}`
}

/** What one text is about: people, things, places and numbers that keep their values throughout it. */
export function drawFacts(random: Random): Facts {
  const [amount, higherAmount] = amounts(random)
  const [first, friend, agent] = different(random, firstNames)
  const [city, town] = different(random, cities)
  const [day, dayAfter] = different(random, days)
  const [look, otherLook] = different(random, looks)
  const [article, otherArticle] = different(random, articles)
  const last = pick(random, lastNames)
  return {
    first,
    last,
    name: `${first} ${last}`,
    friend,
    agent,
    product: `${look} ${article}`,
    other: `${otherLook} ${otherArticle}`,
    article,
    order: drawOrderNumber(random),
    amount,
    higherAmount,
    city,
    town,
    shop: pick(random, shops),
    job: pick(random, jobs),
    day,
    dayAfter,
    month: pick(random, months),
    count: pick(random, counts),
    countAfter: pick(random, counts),
  }
}
