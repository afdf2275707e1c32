/** A member for driver tests: writes down what it sees, as lines, and answers joins with its history. */
import type { ClusterDriver, DriverEvents } from '../../../src/cluster/driver.js'
import { nodeKey, type SdNode } from '../../../src/model/node.js'

export function testNode(port: number): SdNode {
  return { host: '127.0.0.1', port, vnodes: 128, zone: 1, spaceBytes: 1024 }
}

export class Recorder implements DriverEvents {
  readonly node: SdNode
  readonly driver: ClusterDriver
  /** Everything this member has seen, in order. */
  readonly lines: string[] = []
  /** What only this member is told. */
  readonly own: string[] = []
  onBlocked: () => void = () => undefined
  onNotified: (text: string) => void = () => undefined
  /** Why it turns joiners away; undefined: it lets everybody in. */
  refusal: string | undefined
  serves = false

  constructor(driver: ClusterDriver, port: number) {
    this.driver = driver
    this.node = testNode(port)
  }

  join(request = `hello from ${this.node.port}`): Promise<void> {
    return this.driver.join(this.node, Buffer.from(request), this)
  }

  notify(text: string): void {
    this.driver.notify(Buffer.from(text))
  }

  unblock(text: string): void {
    this.driver.unblock(Buffer.from(text))
  }

  isServing(): boolean {
    return this.serves
  }

  joinRefusal(joiner: SdNode): string | undefined {
    if (this.refusal !== undefined) this.own.push(`turned ${joiner.port} away`)
    return this.refusal
  }

  joinRequest(joiner: SdNode, members: readonly SdNode[], request: Buffer): Buffer {
    this.own.push(`asked ${joiner.port} [${ports(members)}] ${request}`)
    return Buffer.from(`seen ${this.lines.length} by ${this.node.port}`)
  }

  accepted(joiner: SdNode, members: readonly SdNode[], answer: Buffer): void {
    this.lines.push(`accepted ${joiner.port} [${ports(members)}] ${answer}`)
  }

  left(node: SdNode, members: readonly SdNode[]): void {
    this.lines.push(`left ${node.port} [${ports(members)}]`)
  }

  notified(sender: SdNode, message: Buffer): void {
    const text = message.toString()
    this.lines.push(`notified ${sender.port} ${text.slice(0, 60)}`)
    this.onNotified(text)
  }

  blocked(): void {
    this.own.push('blocked')
    this.onBlocked()
  }

  updated(node: SdNode, members: readonly SdNode[]): void {
    this.lines.push(`updated ${nodeKey(node)} vnodes=${node.vnodes} [${ports(members)}]`)
  }

  suspended(reason: string): void {
    this.own.push(`suspended ${reason}`)
  }

  lost(reason: string): void {
    this.own.push(`lost ${reason}`)
  }
}

function ports(members: readonly SdNode[]): string {
  return members.map((member) => member.port).join(' ')
}
