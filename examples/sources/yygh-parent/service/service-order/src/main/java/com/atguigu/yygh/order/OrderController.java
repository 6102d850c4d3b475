package com.atguigu.yygh.order;

import com.atguigu.yygh.common.YyghException;
import com.atguigu.yygh.hosp.client.HospApi;
import com.atguigu.yygh.model.hosp.Schedule;
import com.atguigu.yygh.model.order.DayCount;
import com.atguigu.yygh.model.order.HospitalCount;
import com.atguigu.yygh.model.order.NewOrder;
import com.atguigu.yygh.model.order.Order;
import com.atguigu.yygh.model.order.OrderView;
import com.atguigu.yygh.model.user.Patient;
import com.atguigu.yygh.order.client.OrderApi;
import com.atguigu.yygh.user.client.UserApi;
import java.time.LocalDate;
import java.util.List;
import org.springframework.web.bind.annotation.RestController;

@RestController
class OrderController implements OrderApi {

    private final Orders orders;
    private final Names names;
    private final HospApi hospitals;
    private final UserApi users;

    OrderController(Orders orders, Names names, HospApi hospitals, UserApi users) {
        this.orders = orders;
        this.names = names;
        this.hospitals = hospitals;
        this.users = users;
    }

    @Override
    public List<OrderView> orders(Order.Status status) {
        return names.of(orders.all().stream()
                .filter(order -> status == null || order.status() == status)
                .toList());
    }

    @Override
    public OrderView order(long id) {
        return names.of(orders.get(id));
    }

    @Override
    public OrderView place(NewOrder asked) {
        if (asked.scheduleId() == null || asked.patientId() == null) {
            throw YyghException.badRequest("scheduleId 与 patientId 不能为空");
        }
        Patient patient = users.patient(asked.patientId());
        Schedule schedule = hospitals.take(asked.scheduleId());
        return names.of(orders.place(schedule, patient.id()));
    }

    @Override
    public OrderView pay(long id) {
        return names.of(orders.change(id, Order::pay));
    }

    @Override
    public OrderView cancel(long id) {
        Order cancelled = orders.change(id, Order::cancel);
        if (cancelled.visitDate().isAfter(LocalDate.now())) {
            hospitals.giveBack(cancelled.scheduleId());
        }
        return names.of(cancelled);
    }

    @Override
    public List<Order> visits(LocalDate day) {
        return orders.all().stream()
                .filter(order -> order.visitDate().equals(day))
                .filter(order -> order.status() != Order.Status.CANCELLED)
                .toList();
    }

    @Override
    public List<DayCount> countByDay() {
        return Counts.byDay(orders.all());
    }

    @Override
    public List<HospitalCount> countByHospital() {
        return Counts.byHospital(orders.all());
    }
}
