package com.atguigu.yygh.order;

import com.atguigu.yygh.model.order.DayCount;
import com.atguigu.yygh.model.order.HospitalCount;
import com.atguigu.yygh.model.order.Order;
import com.atguigu.yygh.model.order.Order.Status;
import java.math.BigDecimal;
import java.util.List;
import java.util.TreeMap;
import java.util.function.Function;
import java.util.stream.Collectors;

/** Adds up orders; what was cancelled brings in nothing. */
final class Counts {

    private Counts() {
    }

    static List<DayCount> byDay(List<Order> orders) {
        return grouped(orders, order -> order.placed().toLocalDate()).entrySet().stream()
                .map(day -> new DayCount(
                        day.getKey(), day.getValue().size(), cancelled(day.getValue()), amount(day.getValue())))
                .toList();
    }

    static List<HospitalCount> byHospital(List<Order> orders) {
        return grouped(orders, Order::hoscode).entrySet().stream()
                .map(hospital -> new HospitalCount(
                        hospital.getKey(),
                        hospital.getValue().size(),
                        cancelled(hospital.getValue()),
                        amount(hospital.getValue())))
                .toList();
    }

    private static <K> TreeMap<K, List<Order>> grouped(List<Order> orders, Function<Order, K> key) {
        return orders.stream().collect(Collectors.groupingBy(key, TreeMap::new, Collectors.toList()));
    }

    private static int cancelled(List<Order> orders) {
        return (int) orders.stream().filter(order -> order.status() == Status.CANCELLED).count();
    }

    private static BigDecimal amount(List<Order> orders) {
        return orders.stream()
                .filter(order -> order.status() != Status.CANCELLED)
                .map(Order::fee)
                .reduce(BigDecimal.ZERO, BigDecimal::add);
    }
}
