import type { Grammar } from './grammar.ts'

/** Phrases that every kind of text draws from. */
export const phrases: Grammar = {
  hello: ['Hello', 'Hi', 'Good morning', 'Good afternoon', 'Good evening', 'Dear team', 'Hello there', 'Hi team'],
  bye: ['Best regards', 'Kind regards', 'Many thanks', 'Thank you', 'Yours', 'Best wishes', 'Thanks', 'With thanks'],
  thanks: [
    'thank you for [writing|your message|your letter|getting in touch|telling us]',
    'thanks for [writing to us|your mail|your patience|letting us know]',
    'it is good to hear from you',
    'we have read your [message|letter|mail]',
  ],
  sorry: [
    'we are [very |truly |so |]sorry about this',
    'we are sorry for the trouble',
    'please accept our apologies',
    'this should not have happened',
    'I am sorry to hear that',
  ],
  close: [
    'Please write to us if you need anything else.',
    'We hope this helps.',
    'Have a nice [day|week|weekend].',
    'We will keep you informed.',
    'Thank you for being our customer.',
    'Let us know if there is anything more we can do.',
    '',
    '',
  ],
  please: [
    '[Can|Could] you help me?',
    'Please help.',
    'What can I do now?',
    'Please let me know what to do.',
    'I would be glad to hear from you [soon|today|this week].',
    'Please answer soon.',
    'What do you suggest?',
    '',
    '',
  ],
  mood: [
    'happy',
    'sad',
    'tired',
    'angry',
    'glad',
    'calm',
    'worried',
    'surprised',
    'proud',
    'hungry',
    'busy',
    'cheerful',
  ],
  weather: ['sunny', 'rainy', 'cold', 'windy', 'warm', 'cloudy', 'foggy', 'snowy', 'hot', 'quiet'],
  room: ['kitchen', 'bedroom', 'garden', 'office', 'living room', 'hall', 'garage', 'balcony', 'workshop', 'attic'],
  relative: [
    'mother',
    'father',
    'sister',
    'brother',
    'aunt',
    'uncle',
    'son',
    'daughter',
    'neighbor',
    'friend',
    'cousin',
  ],
  place: [
    'station',
    'market',
    'park',
    'library',
    'school',
    'post office',
    'bank',
    'harbor',
    'museum',
    'bakery',
    'bridge',
  ],
  time: ['in the morning', 'at noon', 'in the evening', 'at night', 'early', 'late', 'after lunch', 'before dinner'],
  look: [
    'shiny',
    'pretty',
    'simple',
    'strong',
    'soft',
    'heavy',
    'light',
    'quiet',
    'useful',
    'cheap',
    'solid',
    'elegant',
  ],
  food: [
    'bread',
    'soup',
    'cake',
    'rice',
    'cheese',
    'apples',
    'fish',
    'pasta',
    'salad',
    'tea',
    'coffee',
    'eggs',
    'honey',
  ],
  payment: ['credit card', 'bank transfer', 'gift card', 'invoice', 'cash'],
  courier: ['the courier', 'the driver', 'the post office', 'the delivery service', 'the carrier'],
}

/** What customers write about: what they say, what a free answer says, and what it is in a few words. */
export interface Problem {
  readonly complaint: readonly string[]
  readonly answer: readonly string[]
  readonly summary: readonly string[]
}

export const problems: readonly Problem[] = [
  {
    complaint: [
      'My {product} has not arrived[ yet|]. I ordered it [last week|last month|on {day}|in {month}] and the order number is {order}.',
      'I am still waiting for the {product} from order {order}. It should have been here on {day}.',
      'Order {order} is late. Where is my {product}? {courier} [does not know|said nothing].',
      'The tracking page says that the {product} was delivered on {day}, but nothing came. The order is {order}.',
    ],
    answer: [
      'We have asked {courier} where your {product} is. Order {order} left our warehouse in {city} on {day}.',
      'Your {product} is on its way from {city} and should arrive on {dayAfter}.',
      'It seems that order {order} was lost on the way. We will send a new {product} on {dayAfter}.',
    ],
    summary: ['the {product} is late', 'order {order} has not arrived', 'a parcel is lost'],
  },
  {
    complaint: [
      'You charged me twice for the {product}. Both payments for order {order} were {amount} dollars.',
      'I paid {higherAmount} dollars for the {product}, but the price was {amount} dollars. The order is {order}.',
      'There are two payments on my {payment} for order {order}. I bought only one {product}.',
      'I need an invoice for the {product} I bought. My order number is {order}.',
    ],
    answer: [
      'We found the mistake and will pay back {amount} dollars to your {payment}.',
      'The second payment for order {order} is cancelled. You will see the money on {dayAfter}.',
      'The invoice for the {product} is attached to this message.',
    ],
    summary: ['{first} paid twice', 'the price of order {order} was wrong', 'the invoice for the {product} is missing'],
  },
  {
    complaint: [
      'I would like to return the {product}. It [does not fit|is too small|is too large|is not what I expected]. The order is {order}.',
      'You sent me a {other}, but I ordered a {product}. My order number is {order}.',
      'The {product} from order {order} does not match my {room}. Can I send it back?',
      'My {relative} already has a {product}, so I want to change it for a {other}.',
    ],
    answer: [
      'You can send the {product} back within {count} weeks. A label is in the mail.',
      'Please keep the {other}. We will send the right {product} on {dayAfter}.',
      'As soon as the {product} is back, we pay you {amount} dollars.',
    ],
    summary: ['{first} wants to return the {product}', 'the wrong thing was sent', 'the {product} goes back'],
  },
  {
    complaint: [
      'I cannot log in[ to my account| to the shop|]. The page says that my password is wrong.',
      'I forgot my password, and the mail with the new one never comes.',
      'My account is locked since {day}. I wanted to see order {order}.',
      'I have a new address in {city}. How do I change it in my account?',
    ],
    answer: [
      'We have opened your account again. Please choose a new password.',
      'A link for a new password is on its way to you.',
      'Your address is now the one in {city}.',
    ],
    summary: ['{first} cannot log in', 'the account is locked', 'a password is needed'],
  },
  {
    complaint: [
      'The {product} arrived [broken|damaged|with a crack|with a scratch]. The box was [open|wet|torn]. The order is {order}.',
      'When I opened the parcel on {day}, the {product} was in {count} pieces.',
      'A part of the {product} is missing. I cannot use it. My order is {order}.',
      'The {product} [stopped working|broke|makes a strange noise] after {count} [days|weeks|months]. I bought it with order {order}.',
    ],
    answer: [
      'We will send you a new {product} at no cost. You do not need to send the old one back.',
      'Please send us a picture of the {product}, and we will repair or replace it.',
      'The missing part leaves {city} on {dayAfter}. The guarantee covers it.',
    ],
    summary: ['the {product} came broken', 'the {product} does not work', 'a part of the {product} is missing'],
  },
  {
    complaint: [
      'Please cancel order {order}. I do not need the {product} any more.',
      'I ordered the {product} by mistake. Can I still cancel it? The number is {order}.',
      'I found the {product} for {amount} dollars in {city}, so I want to cancel my order.',
    ],
    answer: [
      'Order {order} is cancelled and you pay nothing.',
      'We stopped the {product} before it left {city}.',
      'The {product} has already left, but you can send it back for free.',
    ],
    summary: ['{first} cancels order {order}', 'the {product} is not needed any more'],
  },
  {
    complaint: [
      'Do you have the {product} in stock? I need {count}.',
      'When will the {product} be back? I would like to buy it for my {relative}.',
      'How large is the {product}? It has to fit in my {room}.',
      'Does the {product} come with a guarantee?',
    ],
    answer: [
      'Yes, we have {count} of them in {city}.',
      'The {product} will be back in {month}. We can write to you then.',
      'The {product} comes with a guarantee of {count} years.',
    ],
    summary: ['{first} asks about the {product}', 'a question about the {product}'],
  },
]

/** Small stories, descriptions, lists, questions and notes, by kind; `\n` starts a new line. */
export const templates: Readonly<Record<string, readonly string[]>> = {
  story: [
    '{first} was a {job} in {city}. One {weather} day {first} needed a {product}. The old one was broken. {first} went to the {place}, but nobody sold one there. Then {friend} said, "Try {shop}." {first} ordered the {product} {time}, and it came on {day}. It was [{look} and {look}|very {look}]. {first} was {mood} and told {friend} about it.',
    'On {day} a parcel came to {first} {last}. Inside there was a {product}. "I did not order a {product}," said {first}. "I ordered a {other}." So {first} wrote to {shop}. {agent} from {shop} read the message and said sorry. On {dayAfter} the {other} arrived, and {first} was {mood}.',
    '{first} and {friend} lived near the {place} in {city}. {first} had a {product} and {friend} had a {other}. "Your {product} is {look}," said {friend}. "And your {other} is {look}," said {first}. They changed them for a week. After {count} days {friend} wanted the {other} back, but {first} still liked it. In the end they shared both.',
    'It was {weather} in {city}. {first}, the {job}, sat in the {room} and ate {food}. Suddenly the {product} fell on the floor. "Oh no," said {first}, "my {product}!" {friend} came from the {room} and looked at it. They repaired it together {time}. Then they drank tea and were {mood}.',
    '{agent} worked for {shop} in {city}. Every day {agent} answered letters. On {day} there was a letter from {first}. {first} wrote about a {product} that was {look} but too small. {agent} thought about it and sent a larger one. {first} answered, "Thank you, {agent}. Now my {room} is perfect."',
    '{first} wanted to give a {product} to {friend}. It cost {amount} dollars, but {first} had only a few. So {first} worked for the {job} for {count} weeks. When {first} had {amount} dollars, the {product} was gone. But {agent} from the shop had kept one. {friend} was very {mood} on {day}.',
    'There was a {product} in the window of {shop}. It stood next to a {other}. Many people came by, but nobody bought the {product}. Then a {job} from {town} came in. "How much is the {product}?" asked the {job}. "{amount} dollars," said {agent}. The {job} paid and carried the {product} home to {town}.',
    'The train to {town} left {time}. {first} had a {product} in a bag, and the {relative} of {first} had {food} for the trip. In {town} it was {weather}. They visited the {place} and met {friend}, who was a {job}. "What is in the bag?" asked {friend}. "A {product}," said {first}. "It is for you."',
    '{first} {last} moved from {city} to {town} in {month}. The new {room} was empty. First came a {product}, then a {other}. After {count} weeks the {room} looked {look}. "Come and see my {room}," {first} wrote to {friend}. {friend} came on {day} and brought {food}.',
  ],
  description: [
    'The {product} from {shop} is {look} and {look}. It costs {amount} dollars and is made in {city}. You can use it in the {room} or in the {room}. It comes with a guarantee of {count} years.',
    'New in {month}: the {product}. It is {look}, easy to clean and fits in every {room}. People in {city} love it. Price: {amount} dollars. With a {other} it costs only {higherAmount} dollars.',
    '{shop} is a small shop near the {place} in {city}. It sells things for the {room} and the {room}. {agent} opened it in {month}. It is open from {day} to {dayAfter}. The most popular thing is a {product}.',
    '{first} {last} is a {job} from {city}. {first} likes {food} and {food}. {time} {first} often goes to the {place}. At home there is a {product} in the {room}. The {relative} of {first} lives in {town}.',
    'This {product} weighs {count} pounds. It is {look} and {look}. Please keep it dry. Clean it with a soft towel. If it breaks within {count} years, {shop} repairs it for free.',
  ],
  list: [
    'Order {order} for {name}, {city}:\n- one {product}, {amount} dollars\n- one {other}, {higherAmount} dollars\nTo be sent on {day}.',
    'Orders of {day}:\n- {order}: {first} {last}, {product}\n- {amount}-{higherAmount}: {friend}, {other}\nQuestion: What did {first} order? Answer: A {product}.\nQuestion: What did {friend} order? Answer: A {other}.',
    'To do on {day}:\n1. Send the {product} to {first} in {city}.\n2. Call {friend} about the {other}.\n3. Buy {food} for the team.\n4. Write to {town}.',
    'In the {room} there are:\n- a {product}\n- a {other}\n- {count} boxes\n- [some {food}|an old letter|a picture of {city}]',
    'Customer: {name}\nCity: {city}\nOrder: {order}\nProduct: {product}\nPrice: {amount} dollars\nPaid by: {payment}',
    'Guarantee card\nProduct: {product}\nBought by: {name}\nShop: {shop}, {city}\nValid for {count} years from {month}.',
  ],
  question: [
    'Question: How long can I return a {product}?\nAnswer: You can return the {product} within {count} weeks. It must be clean and in its box.',
    'Question: Where does {shop} send parcels?\nAnswer: {shop} sends parcels to {city}, {town} and many other places. It takes {count} days.',
    'Question: How can I pay for my order?\nAnswer: You can pay by {payment} or by {payment}. We do not take checks.',
    'Question: What does a {product} cost?\nAnswer: The {product} costs {amount} dollars. Sending it costs {count} dollars more.',
    'Question: I forgot my password. What now?\nAnswer: Open the login page, choose a new password and check your mail. If no mail comes, write to {agent}.',
    'Question: Can I cancel an order?\nAnswer: Yes, as long as the parcel has not left {city}. After that you can send it back.',
    'Question: My {product} is broken. Who repairs it?\nAnswer: {shop} repairs it. Send the {product} to {city} and put a letter in the box.',
    '{first} bought a {product} on {day} and a {other} on {dayAfter}.\nQuestion: What did {first} buy on {day}?\nAnswer: A {product}.\nQuestion: What did {first} buy on {dayAfter}?\nAnswer: A {other}.',
    '{first} lives in {city}. {friend} lives in {town}. {first} has a {product}. {friend} has a {other}.\nQuestion: Who has the {product}?\nAnswer: {first}.\nQuestion: Where does the owner of the {other} live?\nAnswer: In {town}.',
    'The number of the order is {order}. The {product} costs {amount} dollars.\nQuestion: What is the number of the order?\nAnswer: {order}.\nQuestion: What costs {amount} dollars?\nAnswer: The {product}.',
    '{first} is a {job}. {friend} writes letters for {shop}.\nQuestion: What is the job of {first}?\nAnswer: {first} is a {job}.',
  ],
  review: [
    'I bought the {product} in {month}, and I am {mood}. It is {look} and {look}. My {relative} has one too. [Five|Four|Three] stars. {first} from {city}',
    'The {product} is not as {look} as I hoped, but the price of {amount} dollars is fair. {agent} from {shop} was very kind. {first} from {city}',
    'After {count} months my {product} still works. I use it in the {room} every day. I would buy it again. {first}, {job}',
    'Never again. The {product} broke on {day}, and the new one broke on {dayAfter}. But {shop} paid back {amount} dollars. {first} from {town}',
  ],
  howto: [
    'How to clean a {article}: First take everything off the {article}. Then use warm water and a soft towel. Let the {article} dry for {count} hours. Do not put it in the sun.',
    'How to return a {product}: Put the {product} in a strong box. Write {order} on the box. Bring it to the post office in {city}. We pay you back within {count} days.',
    'How to write to {shop}: Give your name, for example {name}. Give the number of the order, for example {order}. Say what is wrong with the {article}. {agent} will answer within {count} days.',
    'How to set up the {product}: Open the box. Take out the {product}. Put it in the {room}, not near the {other}. Wait {count} minutes. If it does not work, call {agent}.',
  ],
}
