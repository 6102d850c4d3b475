import { onMounted, ref, type Ref } from 'vue'

declare const __BASE_API__: string

export interface Hospital {
  hoscode: string
  name: string
  levelName: string
  address: string
  releaseTime: string
}

export interface HospitalSet {
  hoscode: string
  open: boolean
}

export interface OrderView {
  order: {
    id: number
    status: 'UNPAID' | 'PAID' | 'VISITED' | 'CANCELLED'
    doctor: string
    visitDate: string
    slot: 'MORNING' | 'AFTERNOON'
    fee: number
    placed: string
  }
  statusText: string
  hospital: string
  department: string
  patient: string
}

export interface Overview {
  hospitals: number
  orders: number
  cancelled: number
  amount: number
}

export interface Day {
  day: string
  placed: number
  cancelled: number
  amount: number
}

export interface Share {
  hoscode: string
  name: string
  placed: number
  cancelled: number
  amount: number
  percent: number
}

export interface Release {
  service: string
  version: string
  pod: string
}

export interface Index {
  gateway: Release
  routes: (Release & { path: string; up: boolean })[]
}

export async function get<T>(path: string): Promise<T> {
  return answer(await fetch(__BASE_API__ + path))
}

export async function send<T>(method: string, path: string, body: unknown): Promise<T> {
  const headers = { 'Content-Type': 'application/json' }
  return answer(await fetch(__BASE_API__ + path, { method, headers, body: JSON.stringify(body) }))
}

/** Fetches when the component appears; `problem` says in words why there is nothing. */
export function useData<T>(load: () => Promise<T>) {
  const data = ref(null) as Ref<T | null>
  const problem = ref('')

  async function reload() {
    try {
      data.value = await load()
      problem.value = ''
    } catch (error) {
      problem.value = error instanceof Error ? error.message : String(error)
    }
  }

  onMounted(reload)
  return { data, problem, reload }
}

async function answer<T>(response: Response): Promise<T> {
  if (!response.ok) {
    const detail = await response.json().then((body) => body.detail, () => null)
    throw new Error(detail ?? `接口返回 ${response.status}`)
  }
  return response.json()
}
