const namespace = process.env.NAMESPACE ?? 'his'
const base = (process.env.API_BASE ?? `http://server-gateway.${namespace}:8080`).replace(/\/+$/, '')

export interface Hospital {
  hoscode: string
  name: string
  level: string
  levelName: string
  city: string
  address: string
  intro: string
  bookingDays: number
  releaseTime: string
}

export interface Department {
  depcode: string
  name: string
  group: string
  intro: string
}

export interface Schedule {
  id: string
  doctor: string
  title: string
  workDate: string
  slot: 'MORNING' | 'AFTERNOON'
  reserved: number
  available: number
  fee: number
}

export interface Dict {
  value: string
  name: string
}

export interface Patient {
  id: number
  name: string
  relation: string
}

export interface OrderView {
  order: {
    id: number
    doctor: string
    visitDate: string
    slot: 'MORNING' | 'AFTERNOON'
    fee: number
    number: number
  }
  statusText: string
  hospital: string
  department: string
  patient: string
}

/** The gateway, or a service behind it, does not answer. */
export class GatewayDown extends Error {}

/** The gateway answered, and refused. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail)
  }
}

export async function get<T>(path: string): Promise<T> {
  return call(path, {})
}

export async function post<T>(path: string, body: unknown): Promise<T> {
  return call(path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  })
}

async function call<T>(path: string, init: RequestInit): Promise<T> {
  let response: Response
  try {
    // A connection per call: none can be left over from a gateway that has gone.
    const headers = { ...init.headers, Connection: 'close' }
    response = await fetch(base + path, { ...init, headers, signal: AbortSignal.timeout(15_000) })
  } catch (error) {
    throw new GatewayDown(`无法连接网关 ${base}`, { cause: error })
  }
  if (response.status >= 500) {
    throw new GatewayDown(`网关返回 ${response.status}`)
  }
  const answer = await response.json()
  if (!response.ok) {
    throw new Refused(response.status, answer.detail ?? `接口返回 ${response.status}`)
  }
  return answer as T
}
