package com.atguigu.yygh.order;

import com.atguigu.yygh.hosp.client.HospApi;
import com.atguigu.yygh.model.hosp.Department;
import com.atguigu.yygh.model.hosp.Hospital;
import com.atguigu.yygh.model.order.Order;
import com.atguigu.yygh.model.order.OrderView;
import com.atguigu.yygh.model.user.Patient;
import com.atguigu.yygh.user.client.UserApi;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.springframework.stereotype.Component;

/** Looks up what the codes in orders stand for: three calls, however many orders. */
@Component
class Names {

    private static final String UNKNOWN = "未知";

    private final HospApi hospitals;
    private final UserApi users;

    Names(HospApi hospitals, UserApi users) {
        this.hospitals = hospitals;
        this.users = users;
    }

    OrderView of(Order order) {
        return of(List.of(order)).get(0);
    }

    List<OrderView> of(List<Order> orders) {
        Map<String, String> hospitalNames = hospitals.hospitals(null).stream()
                .collect(Collectors.toMap(Hospital::hoscode, Hospital::name));
        Map<String, String> departmentNames = hospitals.allDepartments().stream()
                .collect(Collectors.toMap(Department::depcode, Department::name, (same, again) -> same));
        Map<Long, String> patientNames =
                users.patients().stream().collect(Collectors.toMap(Patient::id, Patient::name));
        return orders.stream()
                .map(order -> new OrderView(
                        order,
                        order.status().text(),
                        hospitalNames.getOrDefault(order.hoscode(), UNKNOWN),
                        departmentNames.getOrDefault(order.depcode(), UNKNOWN),
                        patientNames.getOrDefault(order.patientId(), UNKNOWN)))
                .toList();
    }
}
