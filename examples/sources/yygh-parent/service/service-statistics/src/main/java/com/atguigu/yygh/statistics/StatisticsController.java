package com.atguigu.yygh.statistics;

import com.atguigu.yygh.hosp.client.HospApi;
import com.atguigu.yygh.model.hosp.Hospital;
import com.atguigu.yygh.model.order.DayCount;
import com.atguigu.yygh.model.order.HospitalCount;
import com.atguigu.yygh.order.client.OrderApi;
import java.math.BigDecimal;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestMapping;
import org.springframework.web.bind.annotation.RestController;

@RestController
@RequestMapping("/api/statistics")
class StatisticsController {

    private final OrderApi orders;
    private final HospApi hospitals;

    StatisticsController(OrderApi orders, HospApi hospitals) {
        this.orders = orders;
        this.hospitals = hospitals;
    }

    record Overview(int hospitals, int orders, int cancelled, BigDecimal amount) {
    }

    record HospitalShare(String hoscode, String name, int placed, int cancelled, BigDecimal amount, double percent) {
    }

    @GetMapping("/overview")
    Overview overview() {
        List<DayCount> days = orders.countByDay();
        return new Overview(
                hospitals.hospitals(null).size(),
                days.stream().mapToInt(DayCount::placed).sum(),
                days.stream().mapToInt(DayCount::cancelled).sum(),
                days.stream().map(DayCount::amount).reduce(BigDecimal.ZERO, BigDecimal::add));
    }

    @GetMapping("/days")
    List<DayCount> days() {
        return orders.countByDay();
    }

    @GetMapping("/hospitals")
    List<HospitalShare> hospitals() {
        Map<String, String> names = hospitals.hospitals(null).stream()
                .collect(Collectors.toMap(Hospital::hoscode, Hospital::name));
        List<HospitalCount> counts = orders.countByHospital();
        int all = counts.stream().mapToInt(HospitalCount::placed).sum();
        return counts.stream()
                .sorted(Comparator.comparingInt(HospitalCount::placed).reversed())
                .map(count -> new HospitalShare(
                        count.hoscode(),
                        names.get(count.hoscode()),
                        count.placed(),
                        count.cancelled(),
                        count.amount(),
                        Math.round(count.placed() * 1000.0 / all) / 10.0))
                .toList();
    }
}
