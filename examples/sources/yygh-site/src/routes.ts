import type { IncomingMessage } from 'node:http'
import {
  get, post, Refused,
  type Department, type Dict, type Hospital, type OrderView, type Patient, type Schedule,
} from './api'
import { page } from './render'
import HospitalPage from './pages/HospitalPage.vue'
import HospitalsPage from './pages/HospitalsPage.vue'
import OrderPage from './pages/OrderPage.vue'
import OrdersPage from './pages/OrdersPage.vue'

export interface Reply {
  status: number
  body?: string
  type?: string
  location?: string
}

/** Nobody logs in here: everything is booked by the first user of the sample data. */
const USER = 1
const LONGEST_FORM = 10_000

type Handler = (match: string[], url: URL, request: IncomingMessage) => Promise<Reply>

const routes: [method: string, path: RegExp, handler: Handler][] = [
  ['GET', /^\/healthz$/, async () => ({ status: 200, body: 'ok\n', type: 'text/plain' })],
  ['GET', /^\/$/, hospitals],
  ['GET', /^\/hospitals\/(\w+)$/, hospital],
  ['POST', /^\/bookings$/, book],
  ['GET', /^\/orders$/, orders],
  ['GET', /^\/orders\/(\d+)$/, order],
]

export async function route(request: IncomingMessage): Promise<Reply> {
  const url = new URL(request.url ?? '/', 'http://localhost')
  const method = request.method === 'HEAD' ? 'GET' : request.method
  for (const [allowed, path, handler] of routes) {
    const match = path.exec(url.pathname)
    if (match && method === allowed) {
      return handler(match, url, request)
    }
  }
  throw new Refused(404, '没有这个页面')
}

async function hospitals(_: string[], url: URL): Promise<Reply> {
  const level = url.searchParams.get('level') ?? ''
  const query = level ? `?level=${encodeURIComponent(level)}` : ''
  const [list, levels] = await Promise.all([
    get<Hospital[]>(`/api/hosp/hospitals${query}`),
    get<Dict[]>('/api/cmn/dicts/HosLevel'),
  ])
  return page('预约挂号', HospitalsPage, { hospitals: list, levels, level })
}

async function hospital([, hoscode]: string[], url: URL): Promise<Reply> {
  const path = `/api/hosp/hospitals/${hoscode}`
  const [found, departments, patients] = await Promise.all([
    get<Hospital>(path),
    get<Department[]>(`${path}/departments`),
    get<Patient[]>(`/api/user/users/${USER}/patients`),
  ])
  const wanted = url.searchParams.get('dep')
  const department = departments.find((each) => each.depcode === wanted) ?? departments[0]
  const schedules = await get<Schedule[]>(`${path}/departments/${department.depcode}/schedules`)
  return page(found.name, HospitalPage, { hospital: found, departments, department, schedules, patients })
}

async function book(_: string[], _url: URL, request: IncomingMessage): Promise<Reply> {
  const form = new URLSearchParams(await read(request))
  const placed = await post<OrderView>('/api/order/orders', {
    scheduleId: form.get('schedule'),
    patientId: Number(form.get('patient')),
  })
  return { status: 303, location: `/orders/${placed.order.id}` }
}

async function orders(): Promise<Reply> {
  return page('预约记录', OrdersPage, { orders: await get<OrderView[]>('/api/order/orders') })
}

async function order([, id]: string[]): Promise<Reply> {
  return page('预约详情', OrderPage, { view: await get<OrderView>(`/api/order/orders/${id}`) })
}

async function read(request: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of request) {
    text += chunk
    if (text.length > LONGEST_FORM) {
      throw new Refused(413, '提交的内容过长')
    }
  }
  return text
}
