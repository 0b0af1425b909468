/** What a user calls a model of the hub: `org/name`, or `org/name@revision`. */
interface HubName {
  /** `org/name`. */
  readonly id: string
  /** A branch, tag or commit, where one was named. */
  readonly revision: string | undefined
}

/** As the hub allows names; they become names of folders. */
const part = /^\w(?:[\w.-]{0,94}\w)?$/
const revisionPart = /^\w[\w.-]*$/

/** The model of the hub that a text can stand for; undefined where it can only be a path, as `./a/b`, `/a/b` and `a` are. */
export function parseHubName(text: string): HubName | undefined {
  const at = text.indexOf('@')
  const [id, revision] = at === -1 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)]
  const parts = id.split('/')
  if (parts.length !== 2 || !parts.every((one) => part.test(one)) || /--|\.\.|\.git$/.test(id)) return undefined
  if (revision === undefined) return { id, revision }
  const valid = revision.length <= 250 && revision.split('/').every((one) => revisionPart.test(one))
  return valid && !revision.includes('..') ? { id, revision } : undefined
}
